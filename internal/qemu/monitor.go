package qemu

import (
	"encoding/json"
	"fmt"
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

// monitorPair returns both ends of a socket, the test's and the one that QEMU inherits. It has no path to clean up.
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

// answer is a message of QEMU: an event, or the result of a command.
type answer struct {
	event
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// readMonitor collects QEMU's events, and hands on the results of commands, until the connection ends.
func (m *Machine) readMonitor(c net.Conn) {
	if _, err := io.WriteString(c, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		return
	}
	d := json.NewDecoder(c)
	for {
		var a answer
		if d.Decode(&a) != nil {
			return
		}
		m.mu.Lock()
		if a.Name != "" {
			m.events = append(m.events, a.event)
		}
		waiting := m.answers[a.ID]
		delete(m.answers, a.ID)
		m.mu.Unlock()
		if waiting != nil {
			waiting <- a
		}
	}
}

// QMP runs a command of QEMU's machine protocol, such as device_add, and returns its result.
func (m *Machine) QMP(command string, args map[string]any) (json.RawMessage, error) {
	m.mu.Lock()
	m.commands++
	id, result := m.commands, make(chan answer, 1)
	m.answers[id] = result
	m.mu.Unlock()
	if args == nil {
		args = map[string]any{}
	}
	line, err := json.Marshal(map[string]any{"execute": command, "arguments": args, "id": id})
	if err != nil {
		return nil, err
	}
	if _, err := m.monitor.Write(append(line, '\n')); err != nil {
		return nil, m.failure(fmt.Errorf("%s: %w", command, err))
	}
	select {
	case a := <-result:
		if a.Error != nil {
			return nil, fmt.Errorf("virtual machine %s: %s: %s", m.name, command, a.Error.Desc)
		}
		return a.Return, nil
	case <-m.done:
		return nil, m.failure(fmt.Errorf("ended before %s was answered", command))
	}
}

// PlugUSB plugs an image file in as a USB stick; Config.Args must have a controller for it ("-device", "qemu-xhci"). id names it for Unplug.
func (m *Machine) PlugUSB(id, path string) error {
	file := map[string]any{"driver": "file", "filename": path}
	_, err := m.QMP("blockdev-add", map[string]any{"node-name": id, "driver": "raw", "read-only": true, "file": file})
	if err == nil {
		_, err = m.QMP("device_add", map[string]any{"driver": "usb-storage", "drive": id, "id": "dev-" + id, "removable": true})
	}
	return err
}

// Unplug pulls out the stick that PlugUSB plugged in.
func (m *Machine) Unplug(id string) error {
	_, err := m.QMP("device_del", map[string]any{"id": "dev-" + id})
	return err
}

// Type types on the serial console.
func (m *Machine) Type(text string) error {
	_, err := io.WriteString(m.input, text)
	return err
}

// endOf reads the cause of the end from the events: a watchdog announces itself before the reset that it causes.
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
