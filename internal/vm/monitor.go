package vm

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"syscall"
)

// event is one asynchronous message of QEMU's machine protocol (QMP, docs/interop/qmp-spec).
type event struct {
	Name string `json:"event"`
	Data struct {
		Reason string `json:"reason"` // of SHUTDOWN
		Action string `json:"action"` // of WATCHDOG
	} `json:"data"`
}

// monitorPair returns both ends of a socket: ours, and the one that QEMU inherits. No path, so nothing to clean up.
func monitorPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "qmp")
	theirs = os.NewFile(uintptr(fds[1]), "qmp of qemu")
	ours, err = net.FileConn(f)
	f.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// readMonitor collects QEMU's events until the connection ends.
func (m *Machine) readMonitor(c net.Conn) {
	if _, err := io.WriteString(c, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		return
	}
	d := json.NewDecoder(c)
	for {
		var e event
		if d.Decode(&e) != nil {
			return
		}
		if e.Name != "" {
			m.mu.Lock()
			m.events = append(m.events, e)
			m.mu.Unlock()
		}
	}
}

// endOf reads the cause of the end out of the events: a watchdog announces itself before the reset that it causes.
func endOf(events []event) End {
	end := Killed
	for _, e := range events {
		switch {
		case e.Name == "WATCHDOG":
			return Watchdog
		case e.Name == "SHUTDOWN" && e.Data.Reason == "guest-reset":
			end = Reset
		case e.Name == "SHUTDOWN" && e.Data.Reason == "guest-shutdown":
			end = PowerOff
		}
	}
	return end
}
