package initramfs

import (
	"bytes"
	"io"
	"os"
	"sync"
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
