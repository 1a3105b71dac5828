//go:build vm

package loaders

import (
	"bytes"
	"os"
	"testing"

	"updater/internal/crashdisk"
)

// replay applies the writes of a log to base, sector by sector, and calls visit with the number of sectors
// after each that changes something: every state that a power cut may leave when the medium keeps the order.
func replay(t *testing.T, base, log string, visit func(n int)) (sectors int) {
	t.Helper()
	data, err := os.ReadFile(log)
	must(t, err)
	disk, err := os.OpenFile(base, os.O_RDWR, 0)
	must(t, err)
	defer disk.Close()
	const size = 512
	old := make([]byte, size)
	visit(0)
	_, err = crashdisk.ReadLog(data, func(e crashdisk.LogEntry) error {
		for at := 0; at < len(e.Data); at += size {
			sector, off := e.Data[at:at+size], e.Off+int64(at)
			sectors++
			if _, err := disk.ReadAt(old, off); err != nil {
				return err
			}
			if bytes.Equal(old, sector) {
				continue
			}
			if _, err := disk.WriteAt(sector, off); err != nil {
				return err
			}
			visit(sectors)
		}
		return nil
	})
	must(t, err)
	return sectors
}

// newLog makes the file that QEMU logs into.
func newLog(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(32<<20))
	must(t, f.Close())
	return path
}
