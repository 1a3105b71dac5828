//go:build vm

package bootlab

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// The log of QEMU's blklogwrites (kernel, Documentation/admin-guide/device-mapper/log-writes.rst): a
// superblock, then entries of one sector and their data.
const (
	logMagic   = 0x6a736677736872
	logDiscard = 4
	logMark    = 8
)

// replay applies the writes of a log to base, sector by sector, and calls visit with the number of sectors
// after each that changes something: every state in which the power may be cut when the medium keeps the order.
func replay(t *testing.T, base, log string, visit func(n int)) (sectors int) {
	t.Helper()
	data, err := os.ReadFile(log)
	must(t, err)
	le := binary.LittleEndian
	if got := le.Uint64(data); got != logMagic {
		t.Fatalf("the log has magic %x", got)
	}
	entries, size := le.Uint64(data[16:]), int(le.Uint32(data[24:]))
	disk, err := os.OpenFile(base, os.O_RDWR, 0)
	must(t, err)
	defer disk.Close()
	pos := size
	visit(0)
	for range entries {
		at, count, flags := le.Uint64(data[pos:]), le.Uint64(data[pos+8:]), le.Uint64(data[pos+16:])
		pos += size
		if flags&(logDiscard|logMark) != 0 {
			continue
		}
		for i := range int(count) {
			sector, off, old := data[pos:pos+size], int64(at)*int64(size)+int64(i*size), make([]byte, size)
			pos += size
			sectors++
			_, err := disk.ReadAt(old, off)
			must(t, err)
			if bytes.Equal(old, sector) {
				continue
			}
			_, err = disk.WriteAt(sector, off)
			must(t, err)
			visit(sectors)
		}
	}
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
