package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"golang.org/x/sys/unix"
)

// Disk is a whole disk with a GUID partition table: a block device, or a regular file that holds a disk
// image. It is opened read-only; nothing in it is changed through this type. Safe for concurrent use.
type Disk struct {
	path  string
	f     *os.File
	size  int64
	block bool
	parts []Partition
	fixed bool // the primary table was bad, the backup was read

	sector int64 // bytes of a sector

	mu    sync.Mutex
	claim *os.File // holds a block device without partition nodes exclusively, for all its windows
}

// Partition is one entry of a disk's partition table. The zero value is no partition.
type Partition struct {
	Number int    // in the table, from 1
	Label  string // PARTLABEL
	UUID   string // PARTUUID, lower case
	Offset int64  // in the disk, bytes
	Size   int64  // bytes
	Path   string // device node, or the path of the disk image file
	window bool   // Path is the disk, the partition a window of it
	disk   *Disk
}

// OpenDisk opens a disk and reads its partition table, from the backup where the primary is damaged
// (see [Disk.Degraded]). Sectors of 512 and 4096 bytes are understood.
func OpenDisk(path string) (_ *Disk, err error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening disk: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening disk: %w", err)
	}
	d := &Disk{path: path, f: f, block: info.Mode().Type() == fs.ModeDevice}
	if !d.block && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening disk %s: is neither a block device nor a disk image file", path)
	}
	if d.size, err = sizeOf(f, info); err != nil {
		return nil, fmt.Errorf("opening disk %s: %w", path, err)
	}
	if err := d.readTable(); err != nil {
		return nil, fmt.Errorf("reading the partition table of %s: %w", path, err)
	}
	return d, nil
}

// Close closes the disk and gives up its lock. Devices opened from it stay open, but those of a block device
// without partition nodes lose their exclusiveness.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claim != nil {
		return errors.Join(d.claim.Close(), d.f.Close())
	}
	return d.f.Close()
}

// Path is the path that the disk was opened by.
func (d *Disk) Path() string { return d.path }

// IsFile reports whether the disk is a disk image file.
func (d *Disk) IsFile() bool { return !d.block }

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// SectorSize is the size in bytes of the sectors that the partition table counts in.
func (d *Disk) SectorSize() int64 { return d.sector }

// Partitions lists the partition table in its order.
func (d *Disk) Partitions() []Partition { return slices.Clone(d.parts) }

// Degraded says what is wrong with the partition table although it could be read; "" is nothing.
func (d *Disk) Degraded() string {
	if d.fixed {
		return "the primary partition table is damaged, the backup at the end of the disk was read"
	}
	return ""
}

func (d *Disk) readTable() error {
	var table *gpt.Table
	var err error
	for _, sector := range []int{512, 4096} {
		if d.size < int64(sector)*34 {
			break
		}
		if table, err = readGPT(d.f, sector); err == nil {
			return d.takeTable(table, int64(sector))
		}
	}
	if err == nil {
		err = fmt.Errorf("%d bytes are too few for a partition table", d.size)
	}
	return err
}

// readGPT guards the parser of a library against what a hostile disk may hold.
func readGPT(f backend.File, sector int) (t *gpt.Table, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed: %v", r)
		}
	}()
	return gpt.Read(f, sector, sector)
}

func (d *Disk) takeTable(table *gpt.Table, sector int64) error {
	d.fixed, d.sector = table.RecoveredFromBackup, sector
	for i, p := range table.Partitions {
		if p == nil || p.Type == gpt.Unused || p.End == 0 {
			continue
		}
		number := p.Index
		if number == 0 {
			number = i + 1
		}
		if p.Start > p.End || p.End >= uint64(d.size/sector) {
			return fmt.Errorf("partition %d (sectors %d-%d) is not inside the disk's %d sectors", number, p.Start, p.End, d.size/sector)
		}
		part := Partition{
			Number: number, Label: p.Name, UUID: strings.ToLower(p.GUID),
			Offset: int64(p.Start) * sector, Size: int64(p.End-p.Start+1) * sector,
			Path: d.path, window: true, disk: d,
		}
		if node := d.partitionNode(number); node != "" {
			part.Path, part.window = node, false
		}
		for _, q := range d.parts {
			if part.Offset < q.Offset+q.Size && q.Offset < part.Offset+part.Size {
				return fmt.Errorf("partitions %d and %d overlap", q.Number, number)
			}
		}
		d.parts = append(d.parts, part)
	}
	return nil
}

// partitionNode finds the device node of partition number n of a block device through sysfs. "" when
// the kernel has none, as for a disk image file or a loop device without a partition scan.
func (d *Disk) partitionNode(n int) string {
	if !d.block {
		return ""
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return ""
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	names, _ := filepath.Glob(dir + "/*/partition")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(n) {
			return "/dev/" + strings.ReplaceAll(filepath.Base(filepath.Dir(name)), "!", "/")
		}
	}
	return ""
}

// nodeNumber takes the partition number off the end of a device node's name: sda2, vdb10, nvme0n1p2,
// mmcblk0p3.
var nodeNumber = regexp.MustCompile(`^(?:(?:sd|vd|hd|xvd)[a-z]+|(?:nvme\d+n\d+|mmcblk\d+|loop\d+|nbd\d+)p)(\d+)$`)

// Find returns the one partition that spec names: "PARTLABEL=rootfs_a", "PARTUUID=1b2c...", or a device
// path. Labels match exactly. No match, and more than one, are errors that list the labels there are. On
// a disk image file a device path such as /dev/vda2 means partition 2 of it.
func (d *Disk) Find(spec string) (Partition, error) {
	match, err := d.matcher(spec)
	if err != nil {
		return Partition{}, err
	}
	var found []Partition
	for _, p := range d.parts {
		if match(p) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Partition{}, fmt.Errorf("%s is not on disk %s, which has %s", spec, d.path, d.describe())
	}
	return Partition{}, fmt.Errorf("%s is ambiguous on disk %s: partitions %d and %d both match", spec, d.path, found[0].Number, found[1].Number)
}

func (d *Disk) matcher(spec string) (func(Partition) bool, error) {
	key, value, tagged := strings.Cut(spec, "=")
	switch {
	case tagged && value == "":
	case key == "PARTLABEL" && tagged:
		return func(p Partition) bool { return p.Label == value }, nil
	case key == "PARTUUID" && tagged:
		return func(p Partition) bool { return strings.EqualFold(p.UUID, value) }, nil
	case strings.HasPrefix(spec, "/dev/") && d.block:
		node, err := filepath.EvalSymlinks(spec)
		if err != nil {
			return nil, fmt.Errorf("looking up partition: %w", err)
		}
		return func(p Partition) bool { return !p.window && p.Path == node }, nil
	case strings.HasPrefix(spec, "/dev/"):
		if m := nodeNumber.FindStringSubmatch(filepath.Base(spec)); m != nil {
			return func(p Partition) bool { return strconv.Itoa(p.Number) == m[1] }, nil
		}
		return nil, fmt.Errorf("%s names no partition by number, which a disk image file needs; use PARTLABEL= or PARTUUID=", spec)
	}
	return nil, fmt.Errorf("%q names no partition; expected PARTLABEL=, PARTUUID= or a path below /dev", spec)
}

func (d *Disk) describe() string {
	if len(d.parts) == 0 {
		return "no partitions"
	}
	names := make([]string, len(d.parts))
	for i, p := range d.parts {
		names[i] = fmt.Sprintf("%d %q", p.Number, p.Label)
	}
	return "partitions " + strings.Join(names, ", ")
}

// String names a partition for people: its label where it has one, and the device or window behind it.
func (p Partition) String() string {
	if p.window {
		return fmt.Sprintf("%s partition %d %q", p.disk.path, p.Number, p.Label)
	}
	return p.Path
}

// Open opens the partition. Exclusive refuses one that is mounted, claimed or locked ([BusyError]).
func (p Partition) Open(mode Mode) (*Device, error) { return p.open(p.String(), 0, p.Size, mode) }

// OpenWindow opens size bytes at off of the partition; a negative off counts from its end.
func (p Partition) OpenWindow(off, size int64, mode Mode) (*Device, error) {
	if off < 0 {
		off += p.Size
	}
	if off < 0 || size <= 0 || off > p.Size-size {
		return nil, fmt.Errorf("opening %s: %d bytes at offset %d are not inside its %d bytes", p, size, off, p.Size)
	}
	return p.open(fmt.Sprintf("%s at %#x", p, off), off, size, mode)
}

func (p Partition) open(name string, off, size int64, mode Mode) (*Device, error) {
	if !p.window {
		return openDevice(name, p.Path, off, size, mode)
	}
	if mode == Exclusive && p.disk.block {
		// O_EXCL is for a whole node: one claim serves every window of it.
		if err := p.disk.claimWhole(); err != nil {
			return nil, err
		}
		mode = Shared
	}
	return openDevice(name, p.Path, p.Offset+off, size, mode)
}

// claimWhole holds the disk's node exclusively until Close.
func (d *Disk) claimWhole() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claim != nil {
		return nil
	}
	f, err := os.OpenFile(d.path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return busyBlock(d.path, d.path)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", d.path, err)
	}
	d.claim = f
	return nil
}

// OpenPath opens size bytes at off of a regular file or block device; size 0 is to its end, a negative
// off counts from its end.
func OpenPath(path string, off, size int64, mode Mode) (*Device, error) {
	total, err := pathSize(path)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		off += total
	}
	if size == 0 {
		size = total - off
	}
	name := path
	if off != 0 {
		name = fmt.Sprintf("%s at %#x", path, off)
	}
	return openDevice(name, path, off, size, mode)
}

func pathSize(path string) (int64, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("opening: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("opening: %w", err)
	}
	return sizeOf(f, info)
}

// sizeOf is the size in bytes of a regular file or block device.
func sizeOf(f *os.File, info fs.FileInfo) (int64, error) {
	if info.Mode().IsRegular() {
		return info.Size(), nil
	}
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, &os.PathError{Op: "ioctl BLKGETSIZE64", Path: f.Name(), Err: errno}
	}
	if size > 1<<62 {
		return 0, errors.New("size does not fit 63 bits")
	}
	return int64(size), nil
}

// BootDisk is the node of the whole disk that the running root file system is on. It is an error in an
// initramfs, and on a root that is no plain partition.
func BootDisk() (string, error) {
	sys, err := rootPartition()
	if err != nil {
		return "", fmt.Errorf("finding the disk that booted: %w; set path under [disk]", err)
	}
	return nodeOf(filepath.Dir(sys)), nil
}

// RootPartition is the node of the partition that the running root file system is on, under the same
// conditions as [BootDisk].
func RootPartition() (string, error) {
	sys, err := rootPartition()
	if err != nil {
		return "", fmt.Errorf("finding the root partition: %w", err)
	}
	return nodeOf(sys), nil
}

// rootPartition is the folder of the root's partition in sysfs.
func rootPartition() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return "", err
	}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
	if err != nil {
		return "", ErrNoBootDisk
	}
	if _, err := os.Stat(sys + "/partition"); err != nil {
		return "", fmt.Errorf("%s is no partition", filepath.Base(sys))
	}
	return sys, nil
}

func nodeOf(sys string) string { return "/dev/" + strings.ReplaceAll(filepath.Base(sys), "!", "/") }
