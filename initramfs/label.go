package initramfs

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"unicode/utf16"
)

// UpdateLabel is the volume label of a medium with the update in its root directory.
const UpdateLabel = "UPDATER"

// volumeLabel reads the label of a FAT, exFAT, ext4 or ISO 9660 file system; "" if there is none.
func volumeLabel(node string) string {
	f, err := os.Open(node)
	if err != nil {
		return ""
	}
	defer f.Close()
	return labelOf(f)
}

// labelOf reads the BIOS parameter block of FAT (Microsoft, fatgen103), the boot sector and root directory of exFAT, the
// superblock of ext4 (kernel, Documentation/filesystems/ext4) or the primary volume descriptor (ECMA-119, section 8.4).
func labelOf(r io.ReaderAt) string {
	boot := make([]byte, 512)
	if _, err := r.ReadAt(boot, 0); err != nil {
		return ""
	}
	switch {
	case string(boot[3:11]) == "EXFAT   ":
		return exfatLabel(r, boot)
	case string(boot[82:87]) == "FAT32":
		return trim(boot[71:82])
	case string(boot[54:57]) == "FAT":
		return trim(boot[43:54])
	}
	super := make([]byte, 136)
	if _, err := r.ReadAt(super, 1024); err == nil && super[56] == 0x53 && super[57] == 0xef {
		return trim(super[120:136])
	}
	volume := make([]byte, 72)
	if _, err := r.ReadAt(volume, 16*2048); err == nil && string(volume[:6]) == "\x01CD001" {
		return trim(volume[40:72])
	}
	return ""
}

func trim(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimRight(s, " ")
}

// exfatLabel looks for the volume label in the first 16 entries of the root directory.
func exfatLabel(r io.ReaderAt, boot []byte) string {
	sector, cluster := boot[108], boot[109] // shifts
	heap, root := binary.LittleEndian.Uint32(boot[88:]), binary.LittleEndian.Uint32(boot[96:])
	if sector < 9 || sector > 12 || cluster > 25-sector || root < 2 {
		return ""
	}
	entries := make([]byte, 512)
	at := int64(heap)<<sector + int64(root-2)<<(sector+cluster)
	if _, err := r.ReadAt(entries, at); err != nil {
		return ""
	}
	for ; len(entries) >= 32; entries = entries[32:] {
		if n := int(entries[1]); entries[0] == 0x83 && n <= 11 {
			var text []uint16
			for i := range n {
				text = append(text, binary.LittleEndian.Uint16(entries[2+2*i:]))
			}
			return string(utf16.Decode(text))
		}
	}
	return ""
}
