package crashdisk

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind is a kind of fault.
type Kind int

// The kinds of fault.
const (
	NoFault     Kind = iota
	EIO              // the operation fails; any part of a write may have been carried out
	ENOSPC           // the same for a write to thin storage that is full
	ENODATA          // a read of a bad sector
	ShortWrite       // a write stores half and reports that
	FlushKeep        // a flush fails, and the drive keeps its cache
	FlushDrop        // a flush fails, and the drive has lost its cache
	BitFlip          // a read returns one wrong bit
	BitRot           // a write stores one wrong bit, without an error
	LostWrite        // a write stores nothing, without an error
	LyingFlush       // a flush loses one write of the cache, without an error
	EmptyFlush       // a flush is confirmed and does nothing: later writes may become durable before earlier ones
	Misdirected      // a write goes to another place of the disk, without an error
	StaleRead        // a read returns the content that was durable at the last flush
)

var kindNames = [...]string{
	"none", "EIO", "ENOSPC", "ENODATA", "short write", "flush EIO keeping the cache", "flush EIO dropping the cache", "bit flip on read", "bit rot",
	"lost write", "lying flush", "flush that does nothing", "misdirected write", "stale read",
}

func (k Kind) String() string { return kindNames[k] }

func (k Kind) errno() error {
	switch k {
	case ENOSPC:
		return unix.ENOSPC
	case ENODATA:
		return unix.ENODATA
	}
	return unix.EIO
}

// Fault makes operation N fail, counted from 1, and every later one if it is sticky. Operations are the commands to the
// drive and the buffered pwrite calls. An operation to which Kind does not apply is not affected.
type Fault struct {
	N      int
	Kind   Kind
	Sticky bool
}

func (f Fault) String() string {
	s := fmt.Sprintf("%v at operation %d", f.Kind, f.N)
	if f.Sticky {
		s += " and after it"
	}
	return s
}

// Inject adds a fault. N counts from the next operation.
func (d *Disk) Inject(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.N += d.ops
	d.faults = append(d.faults, f)
}

// Heal removes all faults.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

// Fired returns how often a fault has occurred.
func (d *Disk) Fired() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fired
}

// Operations returns the number of operations so far.
func (d *Disk) Operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// PowerOff makes every further command fail, as on a drive without power.
func (d *Disk) PowerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

type class int

const (
	classPwrite class = iota // a buffered pwrite call, which reaches no drive
	classWrite
	classRead
	classFlush
)

// happens reports whether a kind applies to an operation.
var happens = map[Kind][]class{
	EIO: {classPwrite, classWrite, classRead, classFlush}, ENOSPC: {classWrite}, ENODATA: {classRead},
	ShortWrite: {classPwrite, classWrite}, FlushKeep: {classFlush}, FlushDrop: {classFlush}, BitFlip: {classRead},
	BitRot: {classWrite}, LostWrite: {classWrite}, LyingFlush: {classFlush},
	EmptyFlush: {classFlush}, Misdirected: {classWrite}, StaleRead: {classRead},
}

// fault returns the fault of the operation that op has just counted.
func (d *Disk) fault(c class) Kind {
	if d.dead && c != classPwrite {
		return EIO
	}
	for _, f := range d.faults {
		if f.N != d.ops && (!f.Sticky || f.N >= d.ops) {
			continue
		}
		if slices.Contains(happens[f.Kind], c) {
			d.fired++
			return f.Kind
		}
	}
	return NoFault
}

// Op is one operation of the trace.
type Op struct {
	At       int // step of the record before it
	Name     string
	Off, Len int64
	Err      error
}

func (o Op) String() string {
	s := fmt.Sprintf("%4d  %s", o.At, o.Name)
	if o.Len > 0 {
		s += fmt.Sprintf(" %d+%d", o.Off, o.Len)
	}
	if o.Err != nil {
		s += " = " + errnoName(o.Err)
	}
	return s
}

func errnoName(err error) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// op counts an operation and begins its line of the trace.
func (d *Disk) op(_ class, name string, off, length int64) int {
	d.ops++
	return d.note(name, off, length)
}

// note adds a line to the trace.
func (d *Disk) note(name string, off, length int64) int {
	d.trace = append(d.trace, Op{At: d.clock, Name: name, Off: off, Len: length})
	return len(d.trace) - 1
}

func (d *Disk) end(op int, err error) { d.trace[op].Err = err }
