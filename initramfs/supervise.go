package initramfs

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The times of the supervision.
const (
	beatEvery   = 2 * time.Second
	beatMissing = 60 * time.Second // a worker that was silent for so long hangs
)

// beatFD is the worker's end of the pipe that it says on that it lives.
const beatFD = 3

// Supervisor keeps the one program of the initramfs honest: whatever becomes of it, the machine does not
// stand still. It works as PID 1 too, where it also reaps orphans.
type Supervisor struct {
	Program string   // path of the worker
	Args    []string // its arguments, the name first
	OnDone  string   // what happens when the worker is gone: reboot | poweroff | halt
	Log     func(format string, a ...any)

	// For tests; nil is the real thing.
	end      func(how string) error
	watchdog func(alive func() bool, log func(format string, a ...any))
	missing  time.Duration
	pause    time.Duration
}

// Run starts the worker, arms the hardware watchdog and feeds it while the worker lives and says so. A worker
// that ends, by whatever it is, gets a message on the console, what is dirty is written out, and the machine
// ends as OnDone says. So does one that hangs, unless a watchdog is quicker. Run returns only the error of a
// machine that cannot be ended; a person has to.
func (s Supervisor) Run() error {
	if s.end == nil {
		s.end, s.watchdog, s.missing, s.pause = end, KeepWatchdog, beatMissing, failedPause
	}
	var last atomic.Int64 // of the last beat
	last.Store(time.Now().UnixNano())
	alive := func() bool { return time.Since(time.Unix(0, last.Load())) < s.missing }
	go s.watchdog(alive, s.Log)

	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM) // Ctrl-Alt-Del and a console that goes away
	r, w, err := os.Pipe()
	if err != nil {
		return errors.Join(err, s.end(s.OnDone))
	}
	pid, err := syscall.ForkExec(s.Program, s.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, w.Fd()},
	})
	w.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("starting %s: %w", s.Program, err), s.end(s.OnDone))
	}
	go func() {
		for buf := make([]byte, 64); ; {
			if n, err := r.Read(buf); n == 0 || err != nil {
				return // the worker is gone, and Wait4 knows
			}
			last.Store(time.Now().UnixNano())
		}
	}()
	over := make(chan string, 2)
	go func() { over <- "ended unexpectedly: " + wait(pid) }()
	go func() {
		for alive() {
			time.Sleep(s.missing / 8)
		}
		over <- fmt.Sprintf("has not moved for %s", s.missing)
	}()
	s.Log("error: the updater %s", <-over)
	s.Log("nothing was switched that was not finished; %s in %d s", ending(s.OnDone), int(s.pause.Seconds()))
	unix.Sync()
	time.Sleep(s.pause)
	return s.end(s.OnDone)
}

// ending says how the machine ends, for people.
func ending(how string) string {
	if how == "poweroff" {
		return "powering off"
	}
	if how == "halt" {
		return "halting"
	}
	return "restarting"
}

// wait waits for the process and reaps every other that comes along.
func wait(pid int) string {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err.Error()
		case got == pid && ws.Signaled():
			return "signal " + ws.Signal().String()
		case got == pid && ws.Exited():
			return fmt.Sprintf("exit status %d", ws.ExitStatus())
		}
	}
}

// Beat tells the supervisor for ever that this process lives. The worker starts it in a goroutine.
func Beat() {
	unix.CloseOnExec(beatFD)
	for {
		if _, err := unix.Write(beatFD, []byte{0}); err != nil && !errors.Is(err, unix.EINTR) {
			return // nobody supervises
		}
		time.Sleep(beatEvery)
	}
}
