// Package fat finds and reads files in FAT12, FAT16 and FAT32 file systems, without mounting them. It writes nothing.
//
// Input is hostile: sizes from the boot sector are bounded by the size of the medium before they decide about offsets, a chain
// of clusters is followed for no more than its file or directory may need and never in a circle, and reading costs a few
// sectors of memory. Sectors of 512 to 4096 bytes are understood. Source: Linux, fs/fat/inode.c, fs/fat/dir.c, and
// Microsoft's FAT specification 1.03.
package fat

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Reader reads from the medium, past the page cache.
type Reader interface {
	// ReadBackAt reads len(p) bytes at off as io.ReaderAt does.
	ReadBackAt(p []byte, off int64) (n int, err error)
}

const (
	maxDirectory = 65536 * entryLen // bytes (Linux, FAT_MAX_DIR_SIZE)
	maxFAT12     = 0xff4            // clusters of the largest FAT12 (Linux, MAX_FAT12)
	firstCluster = 2
)

// le is the byte order of everything in a FAT file system.
var le = binary.LittleEndian

// FS is an open file system. Not safe for concurrent use.
type FS struct {
	r        Reader
	bits     int64 // of an entry of the FAT: 12, 16, 32
	fat      int64 // where the FAT begins, bytes
	root     extent
	data     int64 // where cluster 2 begins, bytes
	cluster  int64 // bytes
	clusters int64 // numbers 2 to clusters+1 are valid

	sector   []byte // of the FAT, the last one read
	sectorAt int64
}

// extent is a chain of clusters, or the place of the fixed root directory.
type extent struct {
	first       int64 // cluster; 0 is the root
	off, length int64 // bytes, of the fixed root directory
}

// Open reads the boot sector of a file system on a medium of size bytes.
func Open(r Reader, size int64) (*FS, error) {
	b := make([]byte, 512)
	if err := readFull(r, b, 0); err != nil {
		return nil, fmt.Errorf("reading the boot sector: %w", err)
	}
	sector, perCluster, fats := int64(le.Uint16(b[11:])), int64(b[13]), int64(b[16])
	if b[510] != 0x55 || b[511] != 0xaa || sector < 512 || sector > 4096 || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("no FAT file system: the boot sector has no signature, or sectors of %d bytes", sector)
	}
	reserved, rootEntries := int64(le.Uint16(b[14:])), int64(le.Uint16(b[17:]))
	if perCluster == 0 || perCluster&(perCluster-1) != 0 || fats == 0 || reserved == 0 {
		return nil, fmt.Errorf("no FAT file system: %d sectors in a cluster, %d FATs, %d reserved sectors", perCluster, fats, reserved)
	}
	total, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	f := &FS{r: r, bits: 16, sectorAt: -1, sector: make([]byte, sector), cluster: perCluster * sector, fat: reserved * sector}
	if perFAT == 0 {
		f.bits, perFAT = 32, int64(le.Uint32(b[36:]))
		f.root.first = int64(le.Uint32(b[44:]))
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 { // one FAT is active, the others are not updated
			f.fat += int64(flags&0xf) % fats * perFAT * sector
		}
	}
	f.root.off, f.root.length = (reserved+fats*perFAT)*sector, rootEntries*entryLen
	f.data = f.root.off + (f.root.length+sector-1)/sector*sector
	if total*sector > size || f.data > total*sector {
		return nil, fmt.Errorf("FAT file system of %d sectors of %d bytes, data from byte %d: it does not fit %d bytes", total, sector, f.data, size)
	}
	f.clusters = (total*sector - f.data) / f.cluster
	if f.bits == 16 && f.clusters <= maxFAT12 {
		f.bits = 12
	}
	f.clusters = min(f.clusters, perFAT*sector*8/f.bits-firstCluster)
	if f.bits == 32 && !f.valid(f.root.first) {
		return nil, fmt.Errorf("root directory begins at cluster %d, expected 2 to %d", f.root.first, f.clusters+1)
	}
	return f, nil
}

// SectorSize is the size in bytes of the sectors that the file system counts in.
func (f *FS) SectorSize() int64 { return int64(len(f.sector)) }

func readFull(r Reader, p []byte, off int64) error {
	n, err := r.ReadBackAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (f *FS) valid(cluster int64) bool {
	return cluster >= firstCluster && cluster < f.clusters+firstCluster
}

// offset is where a cluster begins, in bytes.
func (f *FS) offset(cluster int64) int64 { return f.data + (cluster-firstCluster)*f.cluster }

// next is the cluster after a valid one in its chain, 0 at the end.
func (f *FS) next(cluster int64) (int64, error) {
	at, width := cluster*f.bits/8, 2
	if f.bits == 32 {
		width = 4
	}
	var b [4]byte
	for i := range width {
		off := f.fat + at + int64(i)
		sector := off &^ int64(len(f.sector)-1)
		if sector != f.sectorAt {
			f.sectorAt = -1
			if err := readFull(f.r, f.sector, sector); err != nil {
				return 0, fmt.Errorf("reading the FAT: %w", err)
			}
			f.sectorAt = sector
		}
		b[i] = f.sector[off-sector]
	}
	n := int64(le.Uint32(b[:])) & 0x0fffffff
	if f.bits == 12 {
		n = n >> (cluster % 2 * 4) & 0xfff
	}
	if end := int64(1)<<min(f.bits, 28) - 8; n >= end {
		return 0, nil
	}
	if !f.valid(n) {
		return 0, fmt.Errorf("cluster %d is followed by %d, expected 2 to %d", cluster, n, f.clusters+1)
	}
	return n, nil
}

// chain lists the clusters of an extent, up to the number that length bytes need. complete makes a shorter chain an error.
func (f *FS) chain(first, length int64, complete bool) ([]int64, error) {
	if !f.valid(first) {
		return nil, fmt.Errorf("chain begins at cluster %d, expected 2 to %d", first, f.clusters+1)
	}
	want := (length + f.cluster - 1) / f.cluster
	list, seen := []int64{first}, map[int64]bool{first: true}
	for int64(len(list)) < want {
		n, err := f.next(list[len(list)-1])
		if err != nil {
			return nil, err
		}
		if n == 0 && complete {
			return nil, fmt.Errorf("chain of %d clusters is shorter than its file of %d bytes", len(list), length)
		}
		if n == 0 {
			return list, nil
		}
		if seen[n] {
			return nil, fmt.Errorf("chain of clusters returns to cluster %d", n)
		}
		list, seen[n] = append(list, n), true
	}
	return list, nil
}

// Extent is where a file lies, in bytes. The file must have 1 to limit bytes and lie in one piece.
func (f *FS) Extent(path string, limit int64) (off, size int64, err error) {
	list, size, err := f.file(path, limit)
	if err != nil {
		return 0, 0, err
	}
	for i, c := range list {
		if c != list[0]+int64(i) {
			return 0, 0, errors.New("file is fragmented; copy it to a new file so that it lies in one piece")
		}
	}
	if len(list) == 0 {
		return 0, 0, errors.New("file is empty")
	}
	return f.offset(list[0]), size, nil
}

// ReadFile returns the content of a file of at most limit bytes.
func (f *FS) ReadFile(path string, limit int64) ([]byte, error) {
	list, size, err := f.file(path, limit)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	for i, c := range list {
		at := int64(i) * f.cluster
		if err := readFull(f.r, data[at:min(at+f.cluster, size)], f.offset(c)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// Names lists the files and directories in a directory, "" is the root, in their order: the long name of each, else the short
// one. More than limit of them are an error.
func (f *FS) Names(path string, limit int) ([]string, error) {
	dir, err := f.find(path)
	if err != nil {
		return nil, err
	}
	if !dir.directory {
		return nil, errors.New("is a file, expected a directory")
	}
	var names []string
	err = f.entries(dir.first, func(_ entry, long, short string) bool {
		if short != "." && short != ".." {
			names = append(names, cmp.Or(long, short))
		}
		return len(names) <= limit
	})
	if err == nil && len(names) > limit {
		err = fmt.Errorf("directory has more than %d entries", limit)
	}
	return names, err
}

// file finds a file and its clusters. The error of a missing file wraps fs.ErrNotExist.
func (f *FS) file(path string, limit int64) (clusters []int64, size int64, err error) {
	e, err := f.find(path)
	switch {
	case err != nil:
		return nil, 0, err
	case e.directory:
		return nil, 0, errors.New("is a directory, expected a file")
	case e.size > limit:
		return nil, 0, fmt.Errorf("file has %d bytes, expected at most %d", e.size, limit)
	case e.size == 0:
		return nil, 0, nil
	}
	clusters, err = f.chain(e.first, e.size, true)
	return clusters, e.size, err
}

// find finds a file or directory. "" is the root.
func (f *FS) find(path string) (entry, error) {
	e := entry{directory: true, first: f.root.first}
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		if !e.directory {
			return entry{}, fs.ErrNotExist
		}
		var err error
		if e, err = f.lookup(e.first, name); err != nil {
			return entry{}, err
		}
	}
	return e, nil
}
