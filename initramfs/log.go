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
)

// KernelLog passes writes on to a console, and each whole line to the kernel's log as well, where it outlives
// a crash (pstore) and has its time. Safe for concurrent use.
type KernelLog struct {
	console io.Writer

	mu   sync.Mutex
	kmsg *os.File
	line []byte
}

// maxLine bounds a line of the kernel's log (kernel/printk, LOG_LINE_MAX is 1024 less a prefix).
const maxLine = 900

// OpenKernelLog opens the kernel's log. Without one, the console is all.
func OpenKernelLog(console io.Writer) *KernelLog {
	// Otherwise the kernel drops what comes faster than ten lines in five seconds.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return &KernelLog{console: console}
	}
	return &KernelLog{console: console, kmsg: f}
}

// Write implements io.Writer; its result is the console's.
func (k *KernelLog) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.record(p)
	return k.console.Write(p)
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
			_, _ = k.kmsg.Write(append([]byte("<6>"), text...)) // one write is one record
		}
		k.line = bytes.TrimPrefix(k.line[i:], []byte("\n"))
	}
}

// sinceHandOver tells how long ago the kernel started the first program, as its log has it; "" where that is gone.
func sinceHandOver() string {
	now := monotonic()
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	for buf := make([]byte, 8<<10); ; { // one read is one record: "6,512,2345678,-;Run /init as init process"
		n, err := unix.Read(int(f.Fd()), buf)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) { // some are overwritten
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

// monotonic is the time since the start of the kernel, which stamps its log with the same clock.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it always is there
	return time.Duration(t.Nano())
}
