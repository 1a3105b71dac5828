package blockdev

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev/gpt"
	"updater/blockdev/mbr"
)

// table is the partition table of a disk.
type table struct {
	sector int64 // bytes of the sectors that it counts in
	gpt    *gpt.Tables
	parts  []Partition // in the order of their numbers
	faults []string    // faults of a usable table

	head, tail int64 // bytes of the disk that a GPT occupies at its beginning and end
}

// sectorSizes returns the sizes that a GPT may be made for. The disk's own comes first, so that its error is the one reported.
func sectorSizes(own int64) []int64 {
	if own == 4096 {
		return []int64{4096, 512}
	}
	return []int64{512, 4096}
}

// parseTable reads the table that Linux would use: a GPT that its MBR protects, else an MBR (block/partitions/core.c, check_part).
// A GPT without a protective MBR is used, with a fault, if there is no MBR. own is the sector of the disk in bytes, 0 for an image.
func parseTable(read func(sector int64) *gpt.Tables, r mbr.Reader, size, own int64) (*table, error) {
	var unprotected *gpt.Tables
	var failed error
	sector, protective := int64(0), gpt.Protective(r)
	for _, s := range sectorSizes(own) {
		t := read(s)
		_, err := t.Partitions()
		switch {
		case err == nil && protective:
			return gptTable(t, s, own), nil
		case err == nil && unprotected == nil:
			unprotected, sector = t, s
		case err != nil && failed == nil && !t.Absent():
			failed = err
		}
	}
	list, err := mbr.Read(r, size, cmp.Or(own, 512))
	switch {
	case err == nil && (len(list) > 0 || unprotected == nil && failed == nil):
		return mbrTable(list, cmp.Or(own, 512))
	case unprotected != nil:
		return gptTable(unprotected, sector, own), nil
	case failed != nil:
		return nil, failed
	case errors.Is(err, mbr.ErrNone):
		return nil, fmt.Errorf("neither a GUID partition table nor an MBR: %w", err)
	}
	return nil, err
}

// gptTable converts tables whose partitions are good.
func gptTable(tables *gpt.Tables, sector, own int64) *table {
	list, _ := tables.Partitions()
	t := &table{sector: sector, gpt: tables}
	for _, e := range list {
		t.parts = append(t.parts, Partition{Number: e.Number, Label: e.Name, UUID: e.GUID.String(), Offset: e.First * sector,
			Size: (e.Last - e.First + 1) * sector})
	}
	for _, f := range tables.Faults() {
		t.faults = append(t.faults, f.Error())
	}
	if own != 0 && own != sector {
		t.faults = append(t.faults, fmt.Sprintf("the partition table is made for sectors of %d bytes, the disk has %d; Linux ignores it", sector, own))
	}
	return t
}

func mbrTable(list []mbr.Partition, sector int64) (*table, error) {
	t := &table{sector: sector}
	for _, p := range list {
		t.parts = append(t.parts, Partition{Number: p.Number, UUID: p.UUID, Offset: p.Offset, Size: p.Size})
	}
	sorted := slices.Clone(t.parts)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Offset < sorted[j].Offset })
	for i := range sorted[min(1, len(sorted)):] {
		if a, b := sorted[i], sorted[i+1]; b.Offset < a.Offset+a.Size {
			return nil, fmt.Errorf("partitions %d and %d overlap", a.Number, b.Number)
		}
	}
	return t, nil
}

// A TableError reports a disk without a partition table, or one whose table is damaged or contradicts itself.
type TableError struct{ Err error }

func (e *TableError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TableError) Unwrap() error { return e.Err }

// readTable reads the table, and finds the nodes of the partitions.
func (d *Disk) readTable() error {
	var own int64
	if d.block {
		n, err := unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET)
		if err != nil {
			return &os.PathError{Op: "ioctl BLKSSZGET", Path: d.path, Err: err}
		}
		own = int64(n)
	}
	r, err := openDevice(d.path, d.path, 0, d.size, ReadOnly)
	if err != nil {
		return err
	}
	defer r.Close()
	t, err := parseTable(func(sector int64) *gpt.Tables { return gpt.Read(r, d.size, sector) }, r, d.size, own)
	if _, unreadable := errors.AsType[unix.Errno](err); err != nil && !unreadable {
		return &TableError{err}
	}
	if err != nil {
		return err
	}
	if t.gpt != nil {
		t.head, t.tail = t.gpt.Reach(r)
	}
	d.take(t, d.partitionNodes())
	return nil
}

// take sets t as the table of the disk. Partitions without a node are windows of the disk.
func (d *Disk) take(t *table, nodes map[int]string) {
	for i := range t.parts {
		p := &t.parts[i]
		p.disk, p.Path, p.window = d, nodes[p.Number], false
		if p.Path == "" {
			p.Path, p.window = d.path, true
		}
	}
	d.table = *t
}

// partitionNodes finds the device nodes of the partitions of a block device through sysfs, by number. The kernel has none for
// a disk image file, and for a loop device without a partition scan.
func (d *Disk) partitionNodes() map[int]string {
	var st unix.Stat_t
	if !d.block || unix.Fstat(int(d.f.Fd()), &st) != nil {
		return nil
	}
	nodes := map[int]string{}
	names, _ := filepath.Glob(fmt.Sprintf("/sys/dev/block/%d:%d/*/partition", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	for _, name := range names {
		dir := filepath.Dir(name)
		if n, err := strconv.Atoi(sysText(dir, "partition")); err == nil {
			nodes[n] = nodeOf(dir)
		}
	}
	return nodes
}

// TableAreas returns the bytes at the beginning and at the end of the disk that hold its GPT. It is an error if the disk has none.
func (d *Disk) TableAreas() (primary, backup int64, err error) {
	if d.table.gpt == nil {
		return 0, 0, fmt.Errorf("disk %s has %s, expected a GUID partition table", d.path, d.describe())
	}
	return d.table.head, d.table.tail, nil
}

// Degraded describes the faults of the partition table, "" for none. [Disk.RepairTable] restores a damaged copy.
func (d *Disk) Degraded() string { return strings.Join(d.table.faults, "; ") }

// RepairTable restores the copy of a GPT that is damaged, unreadable or different, out of the one that counts, and reports whether it wrote. The
// copy is durable and was read back when it returns nil. Partitions may be in use. [Disk.Degraded] keeps describing the disk as it was opened.
func (d *Disk) RepairTable() (repaired bool, err error) {
	if d.table.gpt == nil {
		return false, nil
	}
	r, err := openDevice(d.path, d.path, 0, d.size, ReadOnly)
	if err != nil {
		return false, err
	}
	defer r.Close()
	restored, err := gpt.Read(r, d.size, d.table.sector).Restored(r)
	if err != nil || restored == nil {
		return false, err
	}
	for _, p := range restored.Pieces() {
		if err := d.replace(p); err != nil {
			return true, fmt.Errorf("repairing the partition table: %w", err)
		}
	}
	return true, nil
}

// replace writes a piece of a table, durably, and reads it back.
func (d *Disk) replace(p gpt.Piece) (err error) {
	w, err := openDevice(fmt.Sprintf("%s at %#x", d.path, p.Offset), d.path, p.Offset, int64(len(p.Data)), Shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return gpt.WritePieces(w, gpt.Piece{Data: p.Data})
}

// TableBytes is the length of the beginning of a disk image that [ReadTable] reads.
const TableBytes = 64 << 10

// ReadTable finds a partition by the table in head, the first bytes of a disk image of size bytes, which need not be a file:
// the primary GPT, or an MBR whose logical partitions lie in head. spec is as for [Disk.Find]. The partition lies inside the
// image; it cannot be opened. name stands for the image in errors.
func ReadTable(name string, head []byte, size int64, spec string) (Partition, error) {
	t, err := headTable(head, size)
	if err != nil {
		return Partition{}, fmt.Errorf("reading the partition table of %s: %w", name, err)
	}
	d := &Disk{path: name, size: size}
	d.take(t, nil)
	return d.Find(spec)
}

func headTable(head []byte, size int64) (*table, error) {
	r := headReader{bytes.NewReader(head)}
	return parseTable(func(sector int64) *gpt.Tables { return gpt.ReadHead(r, size, sector) }, r, size, 0)
}

// headReader is the beginning of an image.
type headReader struct{ *bytes.Reader }

// errBeyond is wrapped by the error for a table that is not all in the beginning of an image.
var errBeyond = errors.New("beyond the beginning of the image that is looked at")

// ReadBackAt implements [gpt.Reader].
func (r headReader) ReadBackAt(p []byte, off int64) (int, error) {
	if off > r.Size()-int64(len(p)) {
		return 0, fmt.Errorf("reading %d bytes at %d: %w", len(p), off, errBeyond)
	}
	return r.ReadAt(p, off)
}
