package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uevents receives the device events of the kernel (lib/kobject_uevent.c). It is not safe for concurrent use.
type Uevents struct{ fd int }

// ListenUevents opens the netlink socket.
func ListenUevents() (*Uevents, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listening for devices: %w", os.NewSyscallError("socket", err))
	}
	// Room for the burst at boot. This needs CAP_NET_ADMIN; without it an overrun only costs a rescan.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, fmt.Errorf("listening for devices: %w", errors.Join(os.NewSyscallError("bind", err), unix.Close(fd)))
	}
	return &Uevents{fd: fd}, nil
}

// Close closes the socket.
func (u *Uevents) Close() error { return unix.Close(u.fd) }

// Wait waits up to d for events, loads the modules they request and returns after the first batch, or after d without any.
// Lost events are not an error; callers read the state of devices from /sys.
func (u *Uevents) Wait(l *Loader, d time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}}
	for first := true; ; first = false {
		timeout := 0
		if first {
			timeout = int(d.Milliseconds())
		}
		n, err := unix.Poll(fds, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("listening for devices: %w", os.NewSyscallError("poll", err))
		}
		if n == 0 {
			return nil
		}
		if err := u.receive(l); err != nil {
			return err
		}
	}
}

func (u *Uevents) receive(l *Loader) error {
	buf := make([]byte, 64<<10)
	n, from, err := unix.Recvfrom(u.fd, buf, unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		l.Coldplug()
		return nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("listening for devices: %w", os.NewSyscallError("recvfrom", err))
	}
	// Port ID 0 is the kernel; other processes can send to the group as well.
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return nil
	}
	for field := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if alias, ok := strings.CutPrefix(string(field), "MODALIAS="); ok {
			l.plug(alias)
		}
	}
	return nil
}
