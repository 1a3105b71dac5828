// Package boottest provides the contract suite that every boot backend must pass, models of boot loaders, and media to run
// the suite on: a regular file, and a medium in memory that records writes and flushes and replays every state that a
// power cut can leave.
package boottest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"updater/boot"
)

// ErrInjected is the error of an operation that fails on request.
var ErrInjected = errors.New("injected")

// Disk is the content of a medium: areas of fixed size, and files or firmware variables by name.
type Disk struct {
	Areas [][]byte
	Files map[string]string
}

// Clone copies a disk.
func (d Disk) Clone() Disk {
	c := Disk{Files: maps.Clone(d.Files)}
	for _, a := range d.Areas {
		c.Areas = append(c.Areas, slices.Clone(a))
	}
	if c.Files == nil {
		c.Files = map[string]string{}
	}
	return c
}

// Medium holds boot state in memory and records every change.
type Medium struct {
	disk   Disk // as the page cache sees it
	start  Disk // when the journal began
	events []event
	ops    int

	readFailed bool // the operation of FailAt was a read of an area

	devices []boot.Area // the areas, if they are not in memory
	// FailAt is the number of the operation (write, flush or read-back, from 1) that fails; 0 for none.
	FailAt int
	Room   int64 // free space of the folder in bytes; files do not reduce it
	// Lie makes writes and flushes succeed without effect.
	Lie bool
	// Opened is the number of files of [Files] that are open.
	Opened int
}

// event is a write of one sector, new content of a file, the removal of a file, or a flush.
type event struct {
	flush bool
	area  int
	off   int64
	data  []byte
	file  string
	gone  bool
}

func (e event) apply(d *Disk) {
	switch {
	case e.flush:
	case e.file != "" && e.gone:
		delete(d.Files, e.file)
	case e.file != "":
		d.Files[e.file] = string(e.data)
	default:
		copy(d.Areas[e.area][e.off:], e.data)
	}
}

// NewMedium returns a medium that holds a copy of the areas.
func NewMedium(areas ...[]byte) *Medium { return New(Disk{Areas: areas}) }

// New returns a medium that holds a copy of d.
func New(d Disk) *Medium { return &Medium{disk: d.Clone(), start: d.Clone(), Room: 1 << 30} }

// Areas returns the areas.
func (m *Medium) Areas() []boot.Area {
	if m.devices != nil {
		return m.devices
	}
	var list []boot.Area
	for i := range m.disk.Areas {
		list = append(list, &area{m, i})
	}
	return list
}

// Disk returns a copy of the current content.
func (m *Medium) Disk() Disk { return m.disk.Clone() }

// Snapshot returns a copy of the current content of the areas.
func (m *Medium) Snapshot() [][]byte { return m.disk.Clone().Areas }

// Writes returns how many sectors, files and variables were written or removed.
func (m *Medium) Writes() int {
	n := 0
	for _, e := range m.events {
		if !e.flush {
			n++
		}
	}
	return n
}

// Operations returns the number of operations so far.
func (m *Medium) Operations() int { return m.ops }

// Crashes is [Medium.CrashDisks] for a medium of areas alone.
func (m *Medium) Crashes(visit func(areas [][]byte)) {
	m.CrashDisks(func(d Disk) { visit(d.Areas) })
}

// CrashDisks calls visit with every state that a power cut can leave: for every prefix of the record, what was flushed plus
// any subset of the later writes. Beyond 8 later writes the subsets are every prefix, all but one, only one, and 64 random
// ones. A rename creates the new name and removes the old one, in any order.
func (m *Medium) CrashDisks(visit func(d Disk)) { m.crashes(0, visit) }

// cutNow is [Medium.CrashDisks] for a power cut after the last recorded event.
func (m *Medium) cutNow(visit func(d Disk)) { m.crashes(len(m.events), visit) }

func (m *Medium) crashes(from int, visit func(d Disk)) {
	rng := rand.New(rand.NewPCG(1, 2))
	for end := from; end <= len(m.events); end++ {
		durable := 0
		for i, e := range m.events[:end] {
			if e.flush {
				durable = i + 1
			}
		}
		base := m.start.Clone()
		for _, e := range m.events[:durable] {
			e.apply(&base)
		}
		open := m.events[durable:end]
		try := func(keep func(i int) bool) {
			d := base.Clone()
			for i, e := range open {
				if keep(i) {
					e.apply(&d)
				}
			}
			visit(d)
		}
		if len(open) <= 8 {
			for mask := range 1 << len(open) {
				try(func(i int) bool { return mask>>i&1 == 1 })
			}
			continue
		}
		for k := range len(open) + 1 {
			try(func(i int) bool { return i < k })
			try(func(i int) bool { return i != k })
			try(func(i int) bool { return i == k })
		}
		for range 64 {
			mask := rng.Uint64()
			try(func(i int) bool { return mask>>(i%64)&1 == 1 })
		}
	}
}

// do counts an operation on name and returns its injected error.
func (m *Medium) do(name string) error {
	m.ops++
	if m.ops == m.FailAt {
		return fmt.Errorf("%s: operation %d: %w", name, m.ops, ErrInjected)
	}
	return nil
}

func (m *Medium) record(e event) {
	m.events = append(m.events, e)
	if !m.Lie {
		e.apply(&m.disk)
	}
}

type area struct {
	m *Medium
	i int
}

func (a *area) String() string { return fmt.Sprintf("area %d", a.i+1) }
func (a *area) Size() int64    { return int64(len(a.m.disk.Areas[a.i])) }

func (a *area) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, a.m.disk.Areas[a.i][off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (a *area) ReadBackAt(p []byte, off int64) (int, error) {
	if err := a.m.do(a.String()); err != nil {
		a.m.readFailed = true
		return 0, err
	}
	return a.ReadAt(p, off)
}

func (a *area) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > a.Size() {
		return 0, fmt.Errorf("%s: write of %d bytes at %d extends beyond its end", a, len(p), off)
	}
	if err := a.m.do(a.String()); err != nil {
		return 0, err
	}
	for at := off; at < off+int64(len(p)); {
		end := min(at-at%boot.Sector+boot.Sector, off+int64(len(p)))
		a.m.record(event{area: a.i, off: at, data: slices.Clone(p[at-off : end-off])})
		at = end
	}
	return len(p), nil
}

func (a *area) Sync() error {
	if err := a.m.do(a.String()); err != nil {
		return err
	}
	a.m.record(event{flush: true})
	return nil
}

// Files is the folder of a medium. Changes are durable after Sync.
type Files struct{ M *Medium }

// List names the files in order.
func (f Files) List() ([]string, error) {
	return slices.Sorted(maps.Keys(f.M.disk.Files)), f.M.do("folder")
}

// Read returns the content of a file.
func (f Files) Read(name string) ([]byte, error) {
	if err := f.M.do(name); err != nil {
		return nil, err
	}
	text, ok := f.M.disk.Files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

// Open opens a file for reading.
func (f Files) Open(name string) (File, error) {
	data, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	f.M.Opened++
	return &openFile{bytes.NewReader(data), &f.M.Opened}, nil
}

// File is an open file.
type File = interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// OpenFile returns an open file with the given content.
func OpenFile(data []byte) File { return &openFile{bytes.NewReader(data), new(int)} }

type openFile struct {
	*bytes.Reader
	opened *int // files that are open
}

func (f *openFile) Close() error {
	*f.opened--
	return nil
}

// Free returns the free space, [Medium.Room].
func (f Files) Free() (int64, error) { return f.M.Room, f.M.do("folder") }

// Write creates or replaces a file. A power cut can leave it empty or half written.
func (f Files) Write(name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := f.M.do(name); err != nil {
		return err
	}
	for _, n := range []int{0, len(data) / 2, len(data)} {
		f.M.record(event{file: name, data: slices.Clone(data[:n])})
	}
	return nil
}

// Rename renames a file. On FAT these are two changes, which may reach the medium in any order.
func (f Files) Rename(from, to string) error {
	data, err := f.Read(from)
	if err != nil {
		return err
	}
	f.M.record(event{file: to, data: data})
	f.M.record(event{file: from, gone: true})
	return nil
}

// Remove removes a file.
func (f Files) Remove(name string) error {
	if _, err := f.Read(name); err != nil {
		return err
	}
	f.M.record(event{file: name, gone: true})
	return nil
}

// Sync makes all changes durable.
func (f Files) Sync() error {
	if err := f.M.do("folder"); err != nil {
		return err
	}
	f.M.record(event{flush: true})
	return nil
}

// Vars presents the files of a medium as firmware variables: every change is atomic and durable at once.
type Vars struct{ M *Medium }

// List names the variables in order.
func (v Vars) List() ([]string, error) { return Files(v).List() }

// Get returns the data of a variable.
func (v Vars) Get(name string) ([]byte, error) { return Files(v).Read(name) }

// Set creates or changes a variable.
func (v Vars) Set(name string, data []byte) error {
	if err := v.M.do(name); err != nil {
		return err
	}
	v.M.record(event{file: name, data: slices.Clone(data)})
	v.M.record(event{flush: true})
	return nil
}

// Delete removes a variable.
func (v Vars) Delete(name string) error {
	if err := Files(v).Remove(name); err != nil {
		return err
	}
	v.M.record(event{flush: true})
	return nil
}

// OpenFiles is the number of open files of the process.
func OpenFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
