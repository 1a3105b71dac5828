package blockdev_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"updater/blockdev"
	"updater/internal/crashdisk"
)

// tableIsWhole checks the checksums of the table whose header is at an offset of the disk, independently of the code
// under test.
func tableIsWhole(disk []byte, at int64) bool {
	h := bytes.Clone(disk[at : at+92])
	sum := binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20])
	if !bytes.HasPrefix(h, []byte("EFI PART")) || crc32.ChecksumIEEE(h) != sum || binary.LittleEndian.Uint64(h[24:])*512 != uint64(at) {
		return false
	}
	entries := binary.LittleEndian.Uint64(h[72:]) * 512
	n := uint64(binary.LittleEndian.Uint32(h[80:])) * uint64(binary.LittleEndian.Uint32(h[84:]))
	return entries+n <= uint64(len(disk)) && crc32.ChecksumIEEE(disk[entries:entries+n]) == binary.LittleEndian.Uint32(h[88:])
}

// reseal corrects the checksums of the table whose header is at an offset of the disk, if it has a place for entries.
func reseal(disk []byte, at int) {
	h := disk[at : at+92]
	first, n := binary.LittleEndian.Uint64(h[72:]), uint64(binary.LittleEndian.Uint32(h[80:]))*uint64(binary.LittleEndian.Uint32(h[84:]))
	if first < 1<<20 && n < 1<<20 && first*512+n <= uint64(len(disk)) {
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(disk[first*512:first*512+n]))
	}
	clear(h[16:20])
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
}

// gptSeed is a header and one entry of a disk of 128 sectors.
func gptSeed() []byte {
	b := make([]byte, 92+128)
	copy(b, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	for at, v := range map[int]uint64{24: 1, 32: 99, 40: 34, 48: 66, 72: 2} {
		binary.LittleEndian.PutUint64(b[at:], v)
	}
	binary.LittleEndian.PutUint32(b[80:], 128)
	binary.LittleEndian.PutUint32(b[84:], 128)
	e := b[92:]
	e[0], e[16] = 1, 2
	binary.LittleEndian.PutUint64(e[32:], 40)
	binary.LittleEndian.PutUint64(e[40:], 50)
	return b
}

// FuzzFitGPT puts a header and entries on a small disk: either nothing is written, or both tables are whole afterwards and a second
// call changes nothing.
func FuzzFitGPT(f *testing.F) {
	f.Add(gptSeed(), false)
	f.Add(gptSeed(), true)
	for _, at := range []int{12, 24, 32, 40, 48, 72, 80, 84, 92 + 32, 92 + 40} {
		b := gptSeed()
		b[at+3], b[at+7] = 0xff, 0x7f
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, head []byte, grow bool) {
		disk := make([]byte, 128*512)
		copy(disk[512:], head[:min(len(head), 92)])
		if len(head) > 92 {
			copy(disk[1024:], head[92:])
		}
		reseal(disk, 512)
		v := crashdisk.New(disk, crashdisk.Options{})
		d := v.Device("disk", 0, int64(len(disk)))
		fit, err := blockdev.FitGPT(d, blockdev.GPTOptions{GrowLast: grow, SectorSize: 512})
		if err != nil || !fit.Moved {
			if _, ok := errors.AsType[*blockdev.GPTError](err); err != nil && !ok || !bytes.Equal(v.Content(), disk) {
				t.Fatalf("FitGPT = %+v, %v, and the disk is the same: %v", fit, err, bytes.Equal(v.Content(), disk))
			}
			return
		}
		after := v.Medium()
		if !tableIsWhole(after, 512) || !tableIsWhole(after, 127*512) {
			t.Fatalf("FitGPT = %+v; primary whole %v, backup whole %v", fit, tableIsWhole(after, 512), tableIsWhole(after, 127*512))
		}
		if again, err := blockdev.FitGPT(d, blockdev.GPTOptions{GrowLast: grow}); err != nil || again.Moved {
			t.Fatalf("FitGPT again = %+v, %v", again, err)
		}
	})
}
