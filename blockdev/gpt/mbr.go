package gpt

import "bytes"

// The protective MBR (UEFI 2.10, section 5.2.3).
const (
	mbrSize        = 512
	offMBREntries  = 446
	mbrEntry       = 16
	protectiveType = 0xee
)

// protective finds the entry of type 0xee from sector 1 (block/partitions/efi.c, is_pmbr_valid). alone is false when other entries
// are used too, as in a hybrid MBR.
func protective(mbr []byte) (entry []byte, alone bool) {
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil, false
	}
	alone = true
	for i := range 4 {
		e := mbr[offMBREntries+mbrEntry*i:][:mbrEntry]
		switch {
		case e[4] == protectiveType && le.Uint32(e[8:]) == 1 && entry == nil:
			entry = e
		case e[4] != 0:
			alone = false
		}
	}
	return entry, alone
}

// Protective reports whether the MBR of a disk has an entry of type 0xee from sector 1, without which Linux ignores a GPT. An MBR
// that cannot be read has none.
func Protective(r Reader) bool {
	mbr := make([]byte, mbrSize)
	if readFull(r, mbr, 0) != nil {
		return false
	}
	e, _ := protective(mbr)
	return e != nil
}

// ProtectiveMBR is the first 512 bytes of a disk with a partition table.
func ProtectiveMBR(sectors int64) []byte {
	mbr := make([]byte, mbrSize)
	e := mbr[offMBREntries:]
	copy(e, []byte{0, 0, 2, 0, protectiveType, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(e[12:], sizeInMBR(sectors))
	mbr[510], mbr[511] = 0x55, 0xaa
	return mbr
}

// FitMBR is mbr with a protective entry that spans a disk of so many sectors. A hybrid MBR, and one without
// a protective entry, are returned unchanged.
func FitMBR(mbr []byte, sectors int64) []byte {
	mbr = bytes.Clone(mbr)
	if e, alone := protective(mbr); e != nil && alone {
		le.PutUint32(e[12:], sizeInMBR(sectors))
	}
	return mbr
}

func sizeInMBR(sectors int64) uint32 { return uint32(min(sectors-1, 0xffffffff)) }
