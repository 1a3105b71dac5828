// Package qemu runs virtual machines in QEMU for tests and the demo, and gives access to their serial console.
//
// A machine is one boot: a guest reboot, a watchdog reset and a power-off all end QEMU (-no-reboot). The disks and the firmware's variable
// file carry the state to the next Start, as on a device. End returns how a machine ended.
//
// PowerCut kills QEMU, so all writes of the guest stay: it is no test of lost caches. The package does not run commands in the
// guest; the content of the disks decides what a machine does.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Config describes one boot.
type Config struct {
	Name     string        // for error messages; "vm" when empty
	Arch     string        // x86_64, aarch64 or arm; "" is x86_64
	MemMiB   int           // guest memory; 0 means 512
	Disks    []Disk        // in this order: /dev/vda, /dev/vdb, ... for virtio disks
	OVMFVars string        // path of the UEFI variables: boots OVMF from disk; the file is created from OVMF's template when missing
	Secure   bool          // OVMF that enforces Secure Boot once keys are enrolled; x86_64 only
	Firmware string        // firmware in place of the machine's own, such as U-Boot: boots from disk
	Kernel   string        // boot this kernel directly instead (with Initrd and Append)
	Initrd   string        // optional, with Kernel
	Append   string        // kernel command line, with Kernel
	Args     []string      // further QEMU arguments
	Timeout  time.Duration // of the whole boot, from Start to the end of QEMU; 0 means 5 minutes
	Log      io.Writer     // gets each cleaned console line as it comes; nil: nowhere
}

// Disk is a raw image file as a disk.
type Disk struct {
	Path     string
	Serial   string // content of the guest's /sys/block/vdX/serial; optional
	ReadOnly bool
	Bus      string // virtio, nvme, ahci, scsi, usb or sd; "" is virtio
}

// End is the way a machine ended.
type End string

// The ways a machine ends.
const (
	Reset    End = "guest reset"    // the guest rebooted (or panicked with panic=)
	PowerOff End = "guest shutdown" // the guest switched itself off
	Watchdog End = "watchdog reset" // the guest did not feed the watchdog
	Killed   End = "killed"         // PowerCut, time-out or a cancelled context
)

// ErrTimeout is in the chain of every error that a boot longer than Config.Timeout causes.
var ErrTimeout = errors.New("time-out of the virtual machine")

// Machine is a running or ended virtual machine. Its methods may be called from several goroutines, but Expect is meant for one reader.
type Machine struct {
	name   string
	ctx    context.Context
	cancel context.CancelCauseFunc
	log    io.Writer
	done   chan struct{} // closed when QEMU has ended and its whole console was read

	mu      sync.Mutex
	lines   []string
	next    int           // first line that Expect has not looked at
	changed chan struct{} // closed, then replaced, with every new line
	events  []event
	exit    error

	input    *os.File // its serial console
	monitor  net.Conn
	commands int                 // sent on the monitor
	answers  map[int]chan answer // of commands that wait for one
}

var errPowerCut = errors.New("power cut")

// Start boots a machine. The machine ends at the latest after cfg.Timeout or when ctx is cancelled; the caller must call Wait or
// PowerCut, which release all resources.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	args, err := cfg.args()
	if err != nil {
		return nil, err
	}
	m := &Machine{name: cfg.Name, log: cfg.Log, done: make(chan struct{}), changed: make(chan struct{})}
	if m.name == "" {
		m.name = "vm"
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = 5 * time.Minute
	}
	ctx, m.cancel = context.WithCancelCause(ctx)
	timed, stop := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w (%v)", ErrTimeout, timeout))
	m.ctx = timed

	monitor, theirs, err := monitorPair()
	if err != nil {
		stop()
		return nil, fmt.Errorf("starting %s: %w", m.name, err)
	}
	typed, input, err := os.Pipe()
	if err != nil {
		stop()
		return nil, fmt.Errorf("starting %s: %w", m.name, err)
	}
	cmd := exec.CommandContext(timed, cfg.qemu(), args...)
	cmd.Stdin = typed
	cmd.ExtraFiles = []*os.File{theirs} // file descriptor 3 of QEMU
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no machine outlives a test that was killed
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	m.input, m.monitor, m.answers = input, monitor, map[int]chan answer{}
	err = cmd.Start()
	theirs.Close()
	typed.Close()
	if err != nil {
		monitor.Close()
		input.Close()
		stop()
		return nil, fmt.Errorf("starting %s: %w", m.name, err)
	}
	go m.run(cmd, monitor, r, w, stop)
	return m, nil
}

// run reads console and monitor until QEMU has ended.
func (m *Machine) run(cmd *exec.Cmd, monitor net.Conn, r *io.PipeReader, w *io.PipeWriter, stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() { m.readConsole(r) })
	wg.Go(func() { m.readMonitor(monitor) })
	err := cmd.Wait()
	w.Close()
	monitor.SetReadDeadline(time.Now().Add(time.Second)) // the last events of QEMU are in the socket already
	wg.Wait()
	monitor.Close()
	m.input.Close()
	if m.ctx.Err() != nil {
		err = context.Cause(m.ctx)
	}
	m.mu.Lock()
	m.exit = err
	m.mu.Unlock()
	close(m.done)
	stop()
	m.cancel(nil)
}

// Wait waits for the end of the machine. It returns nil after a guest reset, power-off, watchdog reset or PowerCut, else an error
// with the last 60 console lines, ErrTimeout in its chain after a time-out.
func (m *Machine) Wait() error {
	<-m.done
	m.mu.Lock()
	err := m.exit
	m.mu.Unlock()
	if err == nil || errors.Is(err, errPowerCut) {
		return nil
	}
	return m.failure(err)
}

// Ended waits at most d and reports whether the machine has ended by then.
func (m *Machine) Ended(d time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(d):
		return false
	}
}

// PowerCut kills the machine at once and waits for its end. Earlier writes of the guest to its disks stay.
func (m *Machine) PowerCut() {
	m.cancel(errPowerCut)
	<-m.done
}

// End waits for the end of the machine and returns its cause.
func (m *Machine) End() End {
	<-m.done
	m.mu.Lock()
	defer m.mu.Unlock()
	return endOf(m.events)
}
