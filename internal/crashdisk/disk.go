package crashdisk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// pageSize is the page size of the page cache, in bytes.
const pageSize = 4096

// Options describe a disk.
type Options struct {
	Sector int64  // bytes that are written whole or not at all, 512 (the default) or 4096
	MaxIO  int64  // largest write command in bytes, a multiple of a page; 0 is 64 KiB
	Seed   uint64 // of every random choice
	Name   string // in errors

	// Damage reports whether a power cut or a failed write may leave the sector at an offset unreadable. An unreadable sector holds
	// [Unreadable] and reads EIO until it is rewritten, in content given to New, too. Nil damages nothing.
	Damage func(off int64) bool

	NoDirect    bool // [Disk.Files] has no descriptor with O_DIRECT
	NoZero      bool // no command for zeros: ZeroOut is not supported
	NoSyncRange bool // the kernel lacks sync_file_range
}

// Unreadable is the content of an unreadable sector, for a boot loader that reads garbage there.
var Unreadable = bytes.Repeat([]byte{0xee, 0x0b, 0xad}, 4096/3+1)[:4096]

// Disk is a disk with its cache and its record, and the page cache of the system that runs on it. It is safe for
// concurrent use.
type Disk struct {
	o     Options
	start []byte // content when the record began

	mu      sync.Mutex
	rng     *rand.Rand
	drive   []byte   // content that read commands return: the medium with the write cache over it
	medium  []byte   // content of stable storage
	pending []*Write // completed or under way, not yet on stable storage, in their order
	clock   int      // of the record
	log     []event
	trace   []Op
	faults  []Fault
	fired   int
	ops     int // commands and buffered writes
	dead    bool
	nodes   []*Node // the first is the disk itself
}

// New returns a disk with content on stable storage.
func New(content []byte, o Options) *Disk {
	if o.Sector == 0 {
		o.Sector = 512
	}
	if o.MaxIO == 0 {
		o.MaxIO = 64 << 10
	}
	if o.Name == "" {
		o.Name = "crashdisk"
	}
	if o.Sector != 512 && o.Sector != 4096 || o.MaxIO%pageSize != 0 || int64(len(content))%o.Sector != 0 {
		panic(fmt.Sprintf("internal error: crashdisk: sector %d, largest command %d, %d bytes", o.Sector, o.MaxIO, len(content)))
	}
	d := &Disk{
		o: o, start: slices.Clone(content), drive: slices.Clone(content), medium: slices.Clone(content),
		rng: rand.New(rand.NewPCG(o.Seed, 0x766f6c6469736b)),
	}
	d.newNode()
	return d
}

// Write is one recorded write. The fields are steps of the record; 0 is never.
type Write struct {
	Off     int64
	Data    []byte
	issued  int // it may be on the medium from here on
	done    int // a flush that is issued later covers it
	durable int // it is on the medium for good
	gone    int // it can no longer reach the medium: it failed, or the drive dropped it
}

func (w *Write) end() int64 { return w.Off + int64(len(w.Data)) }

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return int64(len(d.start)) }

// Content returns a copy of the content that read commands return now, volatile writes included.
func (d *Disk) Content() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.drive)
}

// Medium returns a copy of stable storage: the state after a power cut that loses all volatile writes.
func (d *Disk) Medium() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.medium)
}

// Volatile returns the number of bytes in the drive's cache that a power cut may lose now.
func (d *Disk) Volatile() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var n int64
	for _, w := range d.pending {
		n += int64(len(w.Data))
	}
	return n
}

// WriteCommand writes p at off into the drive's cache as one command.
func (d *Disk) WriteCommand(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.issue(p, off)
	_, err := d.complete(w, "write")
	return err
}

// ReadCommand reads from the drive, its cache first.
func (d *Disk) ReadCommand(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(p, off)
}

// FlushCommand makes every write that completed before it durable.
func (d *Disk) FlushCommand() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flush()
}

// ZeroCommand is a write of zeros (WRITE ZEROES): volatile like any other.
func (d *Disk) ZeroCommand(off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fill(off, length, 0, "zero")
}

// DiscardCommand makes the content of the range undefined: 0xdc, so that code which expects zeros fails.
func (d *Disk) DiscardCommand(off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fill(off, length, 0xdc, "discard")
}

func (d *Disk) fill(off, length int64, b byte, name string) error {
	if err := d.inside(off, length); err != nil {
		return err
	}
	p := make([]byte, length)
	if b != 0 {
		for i := range p {
			p[i] = b
		}
	}
	_, err := d.complete(d.issue(p, off), name)
	return err
}

func (d *Disk) inside(off, length int64) error {
	if off < 0 || length < 0 || off > d.Size()-length {
		return fmt.Errorf("%s: %d bytes at %d are outside its %d bytes: %w", d.o.Name, length, off, d.Size(), unix.EINVAL)
	}
	return nil
}

// issue records a write that may reach the medium from now on.
func (d *Disk) issue(p []byte, off int64) *Write {
	w := &Write{Off: off, Data: slices.Clone(p)}
	d.clock++
	w.issued = d.clock
	d.log = append(d.log, event{at: d.clock, write: w})
	return w
}

// complete executes a write command: it puts w into the drive's cache, unless a fault prevents that. n is the number of
// bytes written.
func (d *Disk) complete(w *Write, name string) (n int64, err error) {
	op := d.op(classWrite, name, w.Off, int64(len(w.Data)))
	defer func() { d.end(op, err) }()
	if err := d.inside(w.Off, int64(len(w.Data))); err != nil {
		return 0, err
	}
	n = int64(len(w.Data))
	switch f := d.fault(classWrite); f {
	case NoFault:
	case LostWrite:
		d.clock++
		w.gone = d.clock
		return n, nil
	case Misdirected:
		// The new place has the same size and lies in the window of the writer or outside it.
		d.clock++
		w.gone = d.clock
		at := d.rng.Int64N((d.Size()-n)/d.o.Sector+1) * d.o.Sector
		d.land(&Write{Off: at, Data: w.Data, issued: w.issued, done: d.clock})
		return n, nil
	case BitRot:
		w.Data[d.rng.IntN(len(w.Data))] ^= 1 << d.rng.IntN(8)
	default:
		return d.fail(w, f)
	}
	d.clock++
	w.done = d.clock
	d.put(w)
	return n, nil
}

// fail ends a failed or short write, of which a part may have reached the drive.
func (d *Disk) fail(w *Write, f Kind) (int64, error) {
	d.clock++
	w.gone = d.clock
	sectors := (int64(len(w.Data)) + d.o.Sector - 1) / d.o.Sector
	landed := int64(0)
	switch {
	case f == ShortWrite:
		landed = sectors / 2 * d.o.Sector
	case d.rng.IntN(2) == 0:
		landed = min(int64(len(w.Data)), d.rng.Int64N(sectors+1)*d.o.Sector)
	}
	d.land(&Write{Off: w.Off, Data: w.Data[:landed], issued: w.issued, done: d.clock})
	if at := w.Off + landed; f != ShortWrite && landed < int64(len(w.Data)) && d.damages(at) && d.rng.IntN(2) == 0 {
		d.land(&Write{Off: at, Data: Unreadable[:min(d.o.Sector, w.end()-at)], issued: w.issued, done: d.clock})
	}
	if f == ShortWrite {
		return landed, nil
	}
	return 0, f.errno()
}

// land records the bytes that a failed write has left in the drive.
func (d *Disk) land(w *Write) {
	if len(w.Data) > 0 {
		d.log = append(d.log, event{at: d.clock, write: w})
		d.put(w)
	}
}

func (d *Disk) damages(off int64) bool { return d.o.Damage != nil && d.o.Damage(off) }

// unreadable reports whether an unreadable sector is in a range.
func (d *Disk) unreadable(off, n int64) bool {
	if d.o.Damage == nil {
		return false
	}
	for at := off / d.o.Sector * d.o.Sector; at < off+n; at += d.o.Sector {
		if bytes.Equal(d.drive[at:at+d.o.Sector], Unreadable[:d.o.Sector]) {
			return true
		}
	}
	return false
}

func (d *Disk) put(w *Write) {
	copy(d.drive[w.Off:], w.Data)
	d.pending = append(d.pending, w)
}

func (d *Disk) read(p []byte, off int64) (err error) {
	op := d.op(classRead, "read", off, int64(len(p)))
	defer func() { d.end(op, err) }()
	if err := d.inside(off, int64(len(p))); err != nil {
		return err
	}
	f := d.fault(classRead)
	if f != NoFault && f != BitFlip && f != StaleRead {
		return f.errno()
	}
	if d.unreadable(off, int64(len(p))) {
		return unix.EIO
	}
	copy(p, d.drive[off:])
	if f == StaleRead {
		copy(p, d.medium[off:])
	}
	if f == BitFlip && len(p) > 0 {
		p[d.rng.IntN(len(p))] ^= 1 << d.rng.IntN(8)
	}
	return nil
}

func (d *Disk) flush() (err error) {
	op := d.op(classFlush, "flush", 0, 0)
	defer func() { d.end(op, err) }()
	f := d.fault(classFlush)
	switch f {
	case NoFault:
	case EmptyFlush:
		return nil
	case FlushDrop, LyingFlush:
		d.drop(f == LyingFlush)
		if f == FlushDrop {
			return unix.EIO
		}
	default:
		return f.errno()
	}
	d.clock++
	for _, w := range d.pending {
		w.durable = d.clock
		copy(d.medium[w.Off:], w.Data)
	}
	d.pending = nil
	d.log = append(d.log, event{at: d.clock, flush: true})
	return nil
}

// drop loses the content of the cache: all of it or, with some, one write. Reads then return the medium.
func (d *Disk) drop(some bool) {
	if len(d.pending) == 0 {
		return
	}
	d.clock++
	lost := d.pending
	if some {
		i := d.rng.IntN(len(d.pending))
		lost = d.pending[i : i+1]
	}
	for _, w := range lost {
		w.gone = d.clock
	}
	d.pending = slices.DeleteFunc(d.pending, func(w *Write) bool { return w.gone != 0 })
	copy(d.drive, d.medium)
	for _, w := range d.pending {
		copy(d.drive[w.Off:], w.Data)
	}
	d.log = append(d.log, event{at: d.clock, dropped: true})
}

// Mark adds a text to the record, such as the guarantee that holds from here on.
func (d *Disk) Mark(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	d.log = append(d.log, event{at: d.clock, mark: text})
	d.trace = append(d.trace, Op{At: d.clock, Name: "mark " + text})
}
