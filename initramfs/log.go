package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"updater/internal/printable"
)

// KernelLog copies each line written to a console into the kernel log as well, which adds a time stamp and survives a crash
// (pstore). Unprintable characters reach neither, since the lines contain file names, labels and disk models: see package printable. It is safe
// for concurrent use.
type KernelLog struct {
	console io.Writer

	mu   sync.Mutex
	kmsg *os.File
	line []byte
}

// maxLine bounds a record of the kernel log, in bytes (kernel/printk/printk.c: LOG_LINE_MAX is 1024 minus a prefix).
const maxLine = 900

// OpenKernelLog opens the kernel log. If it cannot be opened, lines go to the console only.
func OpenKernelLog(console io.Writer) *KernelLog {
	// By default the kernel drops records beyond ten in five seconds.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return &KernelLog{console: console}
	}
	return &KernelLog{console: console, kmsg: f}
}

// Write implements io.Writer. It returns len(p), or the error of the console and 0.
func (k *KernelLog) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := printable.Text(p)
	k.record(text)
	if _, err := k.console.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (k *KernelLog) record(p []byte) {
	if k.kmsg == nil {
		return
	}
	k.line = append(k.line, p...)
	for {
		i := bytes.IndexByte(k.line, '\n')
		if i < 0 && len(k.line) <= maxLine {
			return
		}
		if i < 0 || i > maxLine {
			i = maxLine
		}
		text := bytes.TrimSpace(k.line[:i])
		if len(text) > 0 {
			_, _ = k.kmsg.Write(append([]byte("<6>"), text...)) // each write is one record
		}
		k.line = bytes.TrimPrefix(k.line[i:], []byte("\n"))
	}
}

// sinceHandOver formats the time since the kernel started the first program, from the kernel log; "" if that record is gone.
func sinceHandOver() string {
	now := monotonic()
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	for buf := make([]byte, 8<<10); ; { // each read is one record: "6,512,2345678,-;Run /init as init process"
		n, err := unix.Read(int(f.Fd()), buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) { // EPIPE: records were overwritten
			continue
		}
		if err != nil || n <= 0 {
			return ""
		}
		head, text, _ := strings.Cut(string(buf[:n]), ";")
		if fields := strings.Split(head, ","); strings.HasPrefix(text, "Run /") && len(fields) > 2 {
			micros, err := strconv.ParseInt(fields[2], 10, 64)
			if err != nil {
				return ""
			}
			return fmt.Sprintf(", %.2f s after the kernel handed over", (now - time.Duration(micros)*time.Microsecond).Seconds())
		}
	}
}

// monotonic returns the time since boot, on the clock of the kernel log.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return time.Duration(t.Nano())
}

// ReadLog returns the log as far as the kernel keeps it, with every line of this program.
func ReadLog() ([]byte, error) {
	const sizeOfBuffer, readAll = 10, 3 // SYSLOG_ACTION_SIZE_BUFFER and READ_ALL, include/linux/syslog.h
	size, err := unix.Klogctl(sizeOfBuffer, nil)
	if err != nil {
		return nil, os.NewSyscallError("syslog", err)
	}
	text := make([]byte, size)
	n, err := unix.Klogctl(readAll, text)
	if err != nil {
		return nil, os.NewSyscallError("syslog", err)
	}
	return text[:n], nil
}
