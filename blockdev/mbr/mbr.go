// Package mbr reads the partition table of a master boot record, with its logical partitions, as Linux does
// (block/partitions/msdos.c). It writes nothing.
//
// Input is hostile: a chain of logical partitions is followed for at most [maxLogical] links, never in a circle and never
// outside the disk, and costs a sector of memory at a time.
package mbr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Reader reads from the medium, past the page cache.
type Reader interface {
	// ReadBackAt reads len(p) bytes at off as io.ReaderAt does.
	ReadBackAt(p []byte, off int64) (n int, err error)
}

// ErrNone is wrapped by the error if a disk has no MBR, or one that only protects a GUID partition table.
var ErrNone = errors.New("no MBR partition table")

// Partition is a primary or logical partition. An extended one is not listed: it only holds others.
type Partition struct {
	Number int    // 1 to 4, logical ones from 5
	UUID   string // PARTUUID: the disk's signature and the number
	Type   byte
	Offset int64 // bytes
	Size   int64 // bytes
}

const (
	bootCode   = 440 // the signature of the disk follows
	entries    = 446
	entryLen   = 16
	recordLen  = 512
	protective = 0xee
	maxLogical = 256 // the partitions of a disk that Linux reads
)

// entry is one of the four of a record. Sectors are relative.
type entry struct {
	kind         byte
	first, count int64
}

func (e entry) used() bool { return e.count > 0 }
func (e entry) extended() bool {
	return e.used() && (e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85)
}

// Read lists the partitions of a disk of size bytes with logical sectors of sector bytes, primary ones first.
func Read(r Reader, size, sector int64) ([]Partition, error) {
	record, table, err := readRecord(r, 0)
	if err != nil {
		return nil, err
	}
	for i := range table {
		if flag := record[entries+i*entryLen]; flag&0x7f != 0 {
			return nil, fmt.Errorf("%w: boot flag of partition %d is %#02x, expected 0 or 0x80", ErrNone, i+1, flag)
		}
		if table[i].kind == protective {
			return nil, fmt.Errorf("%w: it protects a GUID partition table", ErrNone)
		}
	}
	c := chain{r: r, size: size, sector: sector, signature: binary.LittleEndian.Uint32(record[bootCode:])}
	for i, e := range table {
		if e.used() && !e.extended() {
			if err := c.add(i+1, e, 0); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range table {
		if e.extended() {
			if err := c.follow(e); err != nil {
				return nil, err
			}
		}
	}
	return c.list, nil
}

// readRecord reads the MBR, or an extended one, at a byte of the disk.
func readRecord(r Reader, off int64) (record []byte, table [4]entry, err error) {
	record = make([]byte, recordLen)
	if n, err := r.ReadBackAt(record, off); n < len(record) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, table, fmt.Errorf("reading the boot record at byte %d: %w", off, err)
	}
	if record[510] != 0x55 || record[511] != 0xaa {
		return nil, table, fmt.Errorf("%w: boot record at byte %d has no signature", ErrNone, off)
	}
	le := binary.LittleEndian
	for i := range table {
		e := record[entries+i*entryLen:]
		table[i] = entry{kind: e[4], first: int64(le.Uint32(e[8:])), count: int64(le.Uint32(e[12:]))}
	}
	return record, table, nil
}

// chain collects partitions.
type chain struct {
	r            Reader
	size, sector int64
	signature    uint32
	list         []Partition
	logical      int
}

// add appends a partition whose first sector counts from base.
func (c *chain) add(number int, e entry, base int64) error {
	off, size := (base+e.first)*c.sector, e.count*c.sector
	if off == 0 || off > c.size-size {
		return fmt.Errorf("partition %d (sectors %d-%d) is not inside the disk of %d sectors", number, base+e.first, base+e.first+e.count-1,
			c.size/c.sector)
	}
	c.list = append(c.list, Partition{Number: number, UUID: fmt.Sprintf("%08x-%02x", c.signature, number), Type: e.kind, Offset: off, Size: size})
	return nil
}

// follow walks the records of an extended partition: each holds a logical partition, relative to itself, and a link to the
// next record, relative to the extended partition. A record without a signature ends the chain, as it does for Linux.
func (c *chain) follow(extended entry) error {
	seen := map[int64]bool{0: true}
	at, length := extended.first, extended.count
	for range maxLogical {
		if seen[at] {
			return fmt.Errorf("chain of logical partitions returns to sector %d", at)
		}
		seen[at] = true
		if (at+1)*c.sector > c.size {
			return fmt.Errorf("extended boot record at sector %d is not inside the disk of %d sectors", at, c.size/c.sector)
		}
		_, table, err := readRecord(c.r, at*c.sector)
		if errors.Is(err, ErrNone) {
			return nil
		}
		if err != nil {
			return err
		}
		next := entry{}
		for i, e := range table {
			switch {
			case e.extended() && !next.used():
				next = e
			case e.used() && !e.extended() && (i < 2 || c.inside(e, at, length, extended)):
				c.logical++
				if err := c.add(4+c.logical, e, at); err != nil {
					return err
				}
			}
		}
		if !next.used() {
			return nil
		}
		at, length = extended.first+next.first, next.count
	}
	return fmt.Errorf("chain of logical partitions has more than %d links", maxLogical)
}

// inside reports whether the third or fourth entry of an extended record is a partition; some tools leave garbage there.
func (c *chain) inside(e entry, at, length int64, extended entry) bool {
	return e.first+e.count <= length && at+e.first+e.count <= extended.first+extended.count
}
