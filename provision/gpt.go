package provision

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Medium is a whole disk that was opened exclusively. blockdev.Device is one. Any error of a write or flush is
// final. Not every use flushes: what was written is on stable storage only after Sync.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	Zero(off, length int64) error
	Sync() error
	ReadBackAt(p []byte, off int64) (n int, err error)
	Size() int64
}

// partitionTypes are the short names of partition types.
var partitionTypes = map[string]gpt.Type{
	"":          gpt.LinuxFilesystem,
	"linux":     gpt.LinuxFilesystem,
	"esp":       gpt.EFISystemPartition,
	"swap":      gpt.LinuxSwap,
	"bios-boot": gpt.BIOSBoot,
}

func typeGUID(name string) (gpt.Type, error) {
	if t, ok := partitionTypes[name]; ok {
		return t, nil
	}
	if !guidForm.MatchString(name) {
		return "", fmt.Errorf("type is %q, expected linux, esp, swap, bios-boot or a GUID", name)
	}
	return gpt.Type(strings.ToUpper(name)), nil
}

// WriteTable writes a new partition table, the backup before the primary one, flushes, and compares both with what
// the medium has then. Old signatures in front of each partition are wiped, so that no old file system shows
// through; keep names a partition whose content stays.
func WriteTable(m Medium, rule DiskRule, parts []Placed, sector int, keep string) error {
	table, err := newTable(rule, parts, sector)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Name == keep {
			continue
		}
		if err := m.Zero(p.Offset, min(p.Length, align)); err != nil {
			return err
		}
	}
	// The library leaves the boot code of a protective MBR as it is.
	if _, err := m.WriteAt(make([]byte, bootCode), 0); err != nil {
		return err
	}
	if err := table.Write(tableFile{m}, m.Size()); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	if err := m.Sync(); err != nil {
		return err
	}
	return CheckTable(m, parts, sector)
}

func newTable(rule DiskRule, parts []Placed, sector int) (*gpt.Table, error) {
	table := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: orNewGUID(rule.GUID)}
	for _, p := range parts {
		t, err := typeGUID(p.Type)
		if err != nil {
			return nil, err
		}
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: p.Number, Start: uint64(p.Offset) / uint64(sector), End: uint64(p.Offset+p.Length)/uint64(sector) - 1,
			Type: t, Name: p.Name, GUID: orNewGUID(p.GUID), Attributes: p.Attributes,
		})
	}
	return table, nil
}

// CheckTable compares the primary and the backup table, as they are on the medium, with each other and with parts.
func CheckTable(m Medium, parts []Placed, sector int) error {
	table, err := readTable(m, sector)
	if err != nil {
		return err
	}
	if len(table.Partitions) != len(parts) {
		return fmt.Errorf("the partition table read back has %d partitions, expected %d", len(table.Partitions), len(parts))
	}
	for _, p := range parts {
		want, err := typeGUID(p.Type)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(table.Partitions, func(q *gpt.Partition) bool { return q.Index == p.Number })
		if i < 0 {
			return fmt.Errorf("the partition table read back lacks partition %d", p.Number)
		}
		q := table.Partitions[i]
		if q.Name != p.Name || !strings.EqualFold(string(q.Type), string(want)) || q.Attributes != p.Attributes ||
			int64(q.Start)*int64(sector) != p.Offset || int64(q.End+1)*int64(sector) != p.Offset+p.Length ||
			p.GUID != "" && !strings.EqualFold(q.GUID, p.GUID) {
			return fmt.Errorf("partition %d read back is %q of %d bytes at %d, expected %q of %d bytes at %d", p.Number,
				q.Name, int64(q.End+1-q.Start)*int64(sector), int64(q.Start)*int64(sector), p.Name, p.Length, p.Offset)
		}
	}
	return nil
}

// readTable reads both tables from the medium, past the page cache, and refuses them when they differ.
func readTable(m Medium, sector int) (_ *gpt.Table, err error) {
	defer func() { // the library's parser is guarded against what a medium may hold
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed partition table: %v", r)
		}
	}()
	table, err := gpt.Read(tableFile{m}, sector, sector)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table back: %w", err)
	}
	if table.RecoveredFromBackup {
		return nil, errors.New("the primary partition table read back is damaged")
	}
	if err := table.Verify(tableFile{m}, uint64(m.Size())); err != nil {
		return nil, fmt.Errorf("the backup partition table read back: %w", err)
	}
	const entries = 128 * gpt.PartitionEntrySize
	first, second := make([]byte, entries), make([]byte, entries)
	if _, err := m.ReadBackAt(first, int64(2*sector)); err != nil {
		return nil, err
	}
	if _, err := m.ReadBackAt(second, m.Size()-int64(sector)-entries); err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the backup partition table read back differs from the primary one")
	}
	return table, nil
}

// bootCode is the length of the boot code in a protective MBR, which a GPT disk does not have.
const bootCode = 446

// tableFile lets the partition table library use a medium: it reads past the page cache.
type tableFile struct{ m Medium }

func (f tableFile) ReadAt(p []byte, off int64) (int, error)  { return f.m.ReadBackAt(p, off) }
func (f tableFile) WriteAt(p []byte, off int64) (int, error) { return f.m.WriteAt(p, off) }
func (f tableFile) Sync() error                              { return f.m.Sync() }
func (f tableFile) Stat() (fs.FileInfo, error)               { return nil, backend.ErrNotSuitable }
func (f tableFile) Read([]byte) (int, error)                 { return 0, backend.ErrNotSuitable }
func (f tableFile) Close() error                             { return nil }
func (f tableFile) Seek(off int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return f.m.Size() + off, nil
	}
	return 0, os.ErrInvalid
}

func orNewGUID(guid string) string {
	if guid != "" {
		return strings.ToUpper(guid)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
