package fat

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// A directory entry, and one that holds a piece of a long name (FAT specification, "Directory Structure", "Long File Name").
const (
	entryLen     = 32
	offAttribute = 11
	offCase      = 12
	offChecksum  = 13
	offHigh      = 20
	offLow       = 26
	offSize      = 28

	attrLabel     = 0x08
	attrDirectory = 0x10
	attrLong      = 0x0f

	free        = 0xe5
	lastPiece   = 0x40
	maxPieces   = 20
	pieceLength = 13 // UTF-16 units
)

// entry is a file or directory.
type entry struct {
	directory bool
	first     int64 // cluster; 0 means none, and the fixed root directory
	size      int64
}

// lookup finds a name in the directory whose first cluster is first, without regard to case. The first match counts, as
// for Linux.
func (f *FS) lookup(first int64, name string) (found entry, err error) {
	missing := true
	err = f.entries(first, func(e entry, long, short string) bool {
		missing = !strings.EqualFold(name, short) && (long == "" || !strings.EqualFold(name, long))
		found = e
		return missing
	})
	if err == nil && (missing || name == "." || name == "..") {
		err = fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return found, err
}

// entries calls take for each file and directory until it returns false. long is "" if there is only a short name.
func (f *FS) entries(first int64, take func(e entry, long, short string) bool) error {
	var long longName
	return f.records(first, func(b []byte) bool {
		attr, name := b[offAttribute], ""
		if attr&0x3f == attrLong && b[0] != free {
			long.add(b)
			return true
		}
		if long.units != nil && long.left == 0 && long.sum == checksum(b) {
			name = long.String()
		}
		long = longName{}
		if b[0] == free || attr&attrLabel != 0 {
			return true
		}
		e := entry{directory: attr&attrDirectory != 0, first: int64(le.Uint16(b[offLow:])), size: int64(le.Uint32(b[offSize:]))}
		if f.bits == 32 {
			e.first |= int64(le.Uint16(b[offHigh:])) << 16
		}
		return take(e, name, shortName(b))
	})
}

// records calls take for the records of a directory until it returns false.
func (f *FS) records(first int64, take func(b []byte) bool) error {
	if first == 0 && f.bits != 32 {
		_, err := f.scan(f.root.off, f.root.length, take)
		return err
	}
	clusters, err := f.chain(first, maxDirectory+1, false)
	if err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if int64(len(clusters))*f.cluster > maxDirectory {
		return fmt.Errorf("directory is longer than %d bytes", maxDirectory)
	}
	for _, c := range clusters {
		if more, err := f.scan(f.offset(c), f.cluster, take); err != nil || !more {
			return err
		}
	}
	return nil
}

// scan is records for bytes of the medium. It reports whether the directory goes on.
func (f *FS) scan(off, length int64, take func(b []byte) bool) (more bool, err error) {
	buf := make([]byte, min(length, 4096))
	for at := int64(0); at < length; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), length-at)]
		if err := readFull(f.r, buf, off+at); err != nil {
			return false, fmt.Errorf("reading a directory: %w", err)
		}
		for b := buf; len(b) >= entryLen; b = b[entryLen:] {
			if b[0] == 0 || !take(b[:entryLen]) {
				return false, nil
			}
		}
	}
	return true, nil
}

// shortName is the 8.3 name of a record. Two bits mark names in lower case (Linux, CASE_LOWER_BASE, CASE_LOWER_EXT).
func shortName(b []byte) string {
	base, ext := strings.TrimRight(string(b[:8]), " "), strings.TrimRight(string(b[8:11]), " ")
	if b[0] == 0x05 {
		base = "\xe5" + base[1:]
	}
	if b[offCase]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if b[offCase]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// checksum of a short name binds a long name to it.
func checksum(b []byte) (sum byte) {
	for _, c := range b[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longName collects the records of a long name, which stand in front of the short one, the last piece first.
type longName struct {
	units []uint16 // nil is no name
	left  int      // pieces that are missing
	sum   byte
}

func (l *longName) add(b []byte) {
	n := int(b[0] &^ lastPiece)
	if b[0]&lastPiece != 0 && n >= 1 && n <= maxPieces {
		*l = longName{units: make([]uint16, n*pieceLength), left: n, sum: b[offChecksum]}
	}
	if l.units == nil || n != l.left || b[offChecksum] != l.sum {
		*l = longName{}
		return
	}
	l.left--
	piece := l.units[l.left*pieceLength:]
	for i := range pieceLength {
		at := 1 + 2*i
		if i >= 5 {
			at += 3
		}
		if i >= 11 {
			at += 2
		}
		piece[i] = le.Uint16(b[at:])
	}
}

func (l *longName) String() string {
	units := l.units
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units))
}
