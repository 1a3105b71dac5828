// Package boottest holds the contract suite that every boot backend passes, and the media it runs on: a
// real file, and a medium in memory that records what is written and flushed, so that every state that a
// power cut can leave is tried.
package boottest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"updater/boot"
)

// sector is what a medium writes whole or not at all.
const sector = 512

// ErrInjected is the error of an operation that a test made fail.
var ErrInjected = errors.New("injected")

// Medium is the areas of one boot state in memory, with one journal of what is done to them.
type Medium struct {
	areas  [][]byte // as the page cache sees them
	start  [][]byte // when the journal began
	events []event
	ops    int
	// FailAt makes the n-th operation (write, flush or read-back, from 1) fail; 0 never.
	FailAt int
	// Lie makes flushes succeed and lose what was written since the one before.
	Lie bool
}

// event is a write of one sector, or a flush.
type event struct {
	flush bool
	area  int
	off   int64
	data  []byte
}

// NewMedium returns a medium that holds a copy of the areas.
func NewMedium(areas ...[]byte) *Medium {
	m := &Medium{}
	for _, a := range areas {
		m.areas, m.start = append(m.areas, slices.Clone(a)), append(m.start, slices.Clone(a))
	}
	return m
}

// Areas gives the areas for a backend.
func (m *Medium) Areas() []boot.Area {
	var list []boot.Area
	for i := range m.areas {
		list = append(list, &area{m, i})
	}
	return list
}

// Snapshot copies what the areas hold now.
func (m *Medium) Snapshot() [][]byte {
	var c [][]byte
	for _, a := range m.areas {
		c = append(c, slices.Clone(a))
	}
	return c
}

// Writes counts the sectors that were written.
func (m *Medium) Writes() int {
	n := 0
	for _, e := range m.events {
		if !e.flush {
			n++
		}
	}
	return n
}

// Crashes calls visit with every state that a power cut may leave: for every prefix of the journal, what was
// flushed, with any subset of the sectors written since. Beyond 8 such sectors the subsets are every
// prefix, all but one, only one, and 64 random ones.
func (m *Medium) Crashes(visit func(areas [][]byte)) {
	rng := rand.New(rand.NewPCG(1, 2))
	for end := 0; end <= len(m.events); end++ {
		durable := 0
		for i, e := range m.events[:end] {
			if e.flush {
				durable = i + 1
			}
		}
		base := NewMedium(m.start...).areas
		apply := func(areas [][]byte, events []event, keep func(i int) bool) {
			for i, e := range events {
				if !e.flush && keep(i) {
					copy(areas[e.area][e.off:], e.data)
				}
			}
		}
		apply(base, m.events[:durable], func(int) bool { return true })
		open := m.events[durable:end]
		try := func(keep func(i int) bool) {
			areas := NewMedium(base...).areas
			apply(areas, open, keep)
			visit(areas)
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

type area struct {
	m *Medium
	i int
}

func (a *area) op() error {
	a.m.ops++
	if a.m.ops == a.m.FailAt {
		return fmt.Errorf("%s: operation %d: %w", a, a.m.ops, ErrInjected)
	}
	return nil
}

// Operations is how many operations there were.
func (m *Medium) Operations() int { return m.ops }

func (a *area) String() string { return fmt.Sprintf("area %d", a.i+1) }
func (a *area) Size() int64    { return int64(len(a.m.areas[a.i])) }

func (a *area) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, a.m.areas[a.i][off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (a *area) ReadBackAt(p []byte, off int64) (int, error) {
	if err := a.op(); err != nil {
		return 0, err
	}
	if a.m.Lie {
		m := NewMedium(a.m.start...)
		return (&area{m, a.i}).ReadAt(p, off)
	}
	return a.ReadAt(p, off)
}

func (a *area) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > a.Size() {
		return 0, fmt.Errorf("%s: write of %d bytes at %d reaches past its end", a, len(p), off)
	}
	if err := a.op(); err != nil {
		return 0, err
	}
	for at := off; at < off+int64(len(p)); {
		end := min(at-at%sector+sector, off+int64(len(p)))
		a.m.events = append(a.m.events, event{area: a.i, off: at, data: slices.Clone(p[at-off : end-off])})
		at = end
	}
	return copy(a.m.areas[a.i][off:], p), nil
}

func (a *area) Sync() error {
	if err := a.op(); err != nil {
		return err
	}
	a.m.events = append(a.m.events, event{flush: true})
	return nil
}

// FileArea is a window of a regular file. It stands beside [Medium] so that the suite also runs on a real
// file, which the boot loaders' own tools can read.
type FileArea struct {
	F        *os.File
	Off, Len int64
}

// OpenFileArea opens a whole file as one area until the test ends.
func OpenFileArea(t *testing.T, path string) *FileArea {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &FileArea{F: f, Len: info.Size()}
}

func (a *FileArea) String() string { return a.F.Name() }

// Size implements [boot.Area].
func (a *FileArea) Size() int64 { return a.Len }

// Sync implements [boot.Area].
func (a *FileArea) Sync() error { return a.F.Sync() }

// ReadAt implements [boot.Area].
func (a *FileArea) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(a.F, a.Off, a.Len).ReadAt(p, off)
}

// ReadBackAt implements [boot.Area].
func (a *FileArea) ReadBackAt(p []byte, off int64) (int, error) { return a.ReadAt(p, off) }

// WriteAt implements [boot.Area].
func (a *FileArea) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > a.Len {
		return 0, fmt.Errorf("%s: write of %d bytes at %d reaches past its end", a, len(p), off)
	}
	return a.F.WriteAt(p, a.Off+off)
}
