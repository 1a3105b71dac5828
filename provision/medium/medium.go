package medium

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"updater/provision/fan"
	"updater/provision/fat"
	"updater/provision/plan"
	"updater/provision/target"
)

// Error reports a medium that could not be written or read, or that does not hold what was written.
type Error struct {
	Unit, Step string
	Err        error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Unit, e.Step, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Medium is the open disk of one unit. Close closes it. Its methods are called from one goroutine, except Stalled and GiveUp.
type Medium struct {
	*watched
	unit   string
	sector int
	parts  []plan.Placed
	writer Writer
}

// New wraps an opened device. parts are those of its partition table, nil while they are unknown.
func New(unit string, d *target.Disk, dev Device, parts []plan.Placed) *Medium {
	return &Medium{watched: &watched{Device: dev, now: time.Now}, unit: unit, sector: d.Sector, parts: parts, writer: dev.Writer()}
}

// Parts are the partitions of the disk.
func (m *Medium) Parts() []plan.Placed { return m.parts }

// Fail makes the error of a step one of the medium; nil stays nil.
func (m *Medium) Fail(step string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Unit: m.unit, Step: step, Err: err}
}

// Blame is Fail if an operation of the disk has failed; otherwise it returns err.
func (m *Medium) Blame(step string, err error) error {
	if known, _ := errors.AsType[*Error](err); known != nil || m.Failed() == nil {
		return err
	}
	return m.Fail(step, err)
}

// Fit lays a plan out on the disk, or, if written is set, finds the partitions that a run has laid out. It writes nothing. It refuses a
// disk on which the plan or an image does not fit. Errors: [plan.TooSmallError], [plan.RefusedError].
func (m *Medium) Fit(p *plan.Plan, images []*Payload, written bool) (err error) {
	switch {
	case p.Image == nil:
		m.parts, err = p.Place(m.unit, m.Size())
	case written:
		if m.parts, err = target.ReadTable(m, m.sector); errors.Is(err, target.ErrNoGPT) {
			err = nil // the image may have no GPT; the checker finds a lost one
		}
	default:
		err = p.Disk.Admit(m.unit, m.Size())
	}
	if err != nil {
		return err
	}
	for _, pl := range images {
		if err := m.fits(pl); err != nil {
			return err
		}
	}
	return nil
}

// fits refuses an image that is larger than its place.
func (m *Medium) fits(pl *Payload) error {
	_, room, err := m.place(pl.Partition)
	if err != nil {
		return err
	}
	if need := pl.Doc.Map.ImageSize(); need > room {
		where := m.unit
		if pl.Partition != "" {
			where += " partition " + pl.Partition
		}
		return &plan.TooSmallError{Disk: where, Size: room, Need: need, Why: "image " + pl.Name}
	}
	return nil
}

// place is where a partition is on the disk; "" is the whole disk.
func (m *Medium) place(partition string) (off, length int64, err error) {
	if partition == "" {
		return 0, m.Size(), nil
	}
	w, err := m.Window(partition)
	return w.Offset, w.Length, err
}

// Window is the partition of a name.
func (m *Medium) Window(name string) (fat.Window, error) {
	for _, p := range m.parts {
		if p.Name == name {
			return m.window(p), nil
		}
	}
	return fat.Window{}, fmt.Errorf("%s: partition %s is not on the disk", m.unit, name)
}

func (m *Medium) window(p plan.Placed) fat.Window {
	return fat.Window{Medium: m, Offset: p.Offset, Length: p.Length, Sector: int64(m.sector)}
}

// Old is the partition table that is on the disk already: its partitions and its GUID, none and "" on a blank disk.
func (m *Medium) Old() ([]plan.Placed, string) {
	parts, err := target.ReadOldTable(m, m.sector)
	if err != nil {
		return nil, ""
	}
	return parts, target.TableGUID(m, m.sector)
}

// OldWindow is the partition of a name in the table that is on the disk already; false if there is none.
func (m *Medium) OldWindow(name string) (fat.Window, bool) {
	parts, err := target.ReadTable(m, m.sector)
	if err != nil {
		return fat.Window{}, false // a blank disk
	}
	for _, p := range parts {
		if p.Name == name {
			return m.window(p), true
		}
	}
	return fat.Window{}, false
}

// WriteTable writes the partition table of a layout. The content of keep, a partition or "", stays if its place does. The table is
// durable and was read back once it returns nil.
func (m *Medium) WriteTable(guid, keep string) error {
	old, had := m.OldWindow(keep)
	if now, err := m.Window(keep); !had || err != nil || now != old {
		keep = ""
	}
	return m.Fail("writing the partition table", m.layout(guid).Write(m, keep))
}

// CheckTable compares the table of a layout with the disk, and the two copies of a whole-disk image's table with each other.
func (m *Medium) CheckTable(p *plan.Plan) error {
	if p.Image == nil {
		return m.layout("").Check(m)
	}
	if len(m.parts) == 0 {
		return nil
	}
	_, err := target.ReadBackTable(m, m.sector)
	return err
}

func (m *Medium) layout(guid string) target.Layout {
	return target.Layout{GUID: guid, Parts: m.parts, Sector: m.sector}
}

// FitTable makes the table of a whole-disk image fit the disk. It is not an error if there is no GPT, unless a partition has to grow.
func (m *Medium) FitTable(grow bool) error {
	found, err := m.watched.FitTable(m.sector, grow)
	switch {
	case err != nil:
		return err
	case found:
		m.parts, err = target.ReadBackTable(m, m.sector)
		return err
	case grow:
		return fmt.Errorf("%s: growing the last partition: the image has no GUID partition table", m.unit)
	}
	m.parts = nil
	return nil
}

// Format makes the empty file systems of a layout, durably. It calls began before each.
func (m *Medium) Format(began func()) error {
	for _, p := range m.parts {
		if p.Filesystem == "" {
			continue
		}
		began()
		if err := fat.Write(m.window(p), label(p.Name), nil); err != nil {
			return fmt.Errorf("%s: partition %s: %w", m.unit, p.Name, err)
		}
		if err := m.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// label is the label of a FAT file system, which has at most 11 characters.
func label(name string) string { return strings.ToUpper(name[:min(len(name), 11)]) }

// Sink writes an image to its place with the paced writer. Flush makes it durable.
func (m *Medium) Sink(pl *Payload) (fan.Sink, error) {
	base, _, err := m.place(pl.Partition)
	return bulk{m.watched, m.writer, base}, err
}

// Flush makes the writes of the sinks durable.
func (m *Medium) Flush() error { return m.Fail("flushing", m.do(m.writer.Flush)) }
