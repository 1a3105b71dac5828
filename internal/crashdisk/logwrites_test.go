package crashdisk_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"updater/internal/crashdisk"
)

// logOf makes a log of sectors of 512 bytes; the super block counts no entry, as when QEMU was killed.
func logOf(entries ...[]byte) []byte {
	log := make([]byte, 512)
	binary.LittleEndian.PutUint64(log, 0x6a736677736872)
	binary.LittleEndian.PutUint64(log[8:], 1)
	binary.LittleEndian.PutUint32(log[24:], 512)
	return append(append(log, bytes.Join(entries, nil)...), make([]byte, 512)...)
}

func entry(sector, sectors, flags uint64, data []byte) []byte {
	e := make([]byte, 512)
	for i, v := range []uint64{sector, sectors, flags, uint64(len(data))} {
		binary.LittleEndian.PutUint64(e[i*8:], v)
	}
	return append(e, data...)
}

func TestReplay(t *testing.T) {
	d := crashdisk.New(fill(9, 64<<10), crashdisk.Options{})
	n, err := d.Replay(logOf(
		entry(8, 2, 0, fill(1, 1024)), entry(0, 0, 1, nil), // a write, a flush
		entry(16, 1, 0, fill(2, 512)),   // volatile
		entry(0, 0, 8, []byte(nil)),     // a mark
		entry(32, 8, 4, nil),            // a discard, without data
		entry(40, 1, 1|2, fill(3, 512)), // flush, write, FUA
		entry(48, 1, 0, fill(4, 512)),
	))
	if err != nil || n != 7 {
		t.Fatalf("Replay = %d, %v; want 7 entries", n, err)
	}
	m := d.Medium()
	for at, want := range map[int]byte{8: 1, 9: 1, 16: 2, 32: 0, 40: 3, 48: 9} {
		if m[at*512] != want {
			t.Errorf("sector %d is %d on the medium; want %d", at, m[at*512], want)
		}
	}
	if d.Volatile() != 512 {
		t.Errorf("%d bytes are volatile; want the last write", d.Volatile())
	}
	for name, log := range map[string][]byte{
		"empty": nil, "other magic": make([]byte, 2048), "cut off": logOf(entry(0, 1, 0, fill(1, 512)))[:1100],
		"past the end": logOf(entry(127, 2, 0, fill(1, 1024))),
	} {
		if _, err := crashdisk.New(make([]byte, 64<<10), crashdisk.Options{}).Replay(log); err == nil {
			t.Errorf("a log that is %s was replayed", name)
		}
	}
}
