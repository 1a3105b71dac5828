package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"updater/blockdev"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// memory is the device's state store, or the lack of one. It wires state to what update asks for.
type memory struct {
	store    *state.Store // nil: nothing is remembered
	maps     *state.Documents
	release  ReleaseConfig
	warnings []string // what is wrong with it, for people
	source   string   // where the image comes from that is being installed
}

// openMemory opens the configured state store. It changes nothing.
func (d *device) openMemory(mode blockdev.Mode) (*memory, error) {
	m := &memory{release: d.config.Release}
	spec := d.config.State
	if spec.Device == "" {
		return m, nil
	}
	fallback := state.State{Floor: m.release.RollbackIndex}
	area, err := d.openStateArea(mode)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mode == blockdev.ReadOnly:
		m.warnings = append(m.warnings, fmt.Sprintf("the state store %s is not there yet; the floor is %d", spec.Device, fallback.Floor))
		return m, nil
	case err != nil:
		return nil, &state.Error{Area: spec.Device, Err: err}
	}
	if m.store, err = state.Open(area, fallback); err != nil {
		return nil, err
	}
	m.maps = state.OpenDocuments(area, d.config.slotParts())
	if lost := m.store.Lost(); lost != "" {
		m.warnings = append(m.warnings, fmt.Sprintf("the state store %s: %s; what was installed is not known, and the floor is %d, that of the running system's configuration", area, lost, fallback.Floor))
	}
	if bad := m.store.Degraded(); bad != "" {
		m.warnings = append(m.warnings, fmt.Sprintf("the state store %s: %s", area, bad))
	}
	return m, nil
}

// readMemory opens just the state store of a device, read-only, and closes it again.
func readMemory(c *Config) (*memory, error) {
	disk, err := openDisk(c)
	if err != nil {
		return nil, err
	}
	d := &device{config: c, disk: disk}
	defer d.Close()
	return d.openMemory(blockdev.ReadOnly)
}

// openStateArea opens a partition of the disk, a window of one or of any device, or a file, which it makes. A whole disk
// must be given as a window, so that its partition table is never meant by mistake.
func (d *device) openStateArea(mode blockdev.Mode) (*blockdev.Device, error) {
	spec := d.config.State
	switch {
	case spec.Size > 0:
		return d.openArea(spec.AreaConfig, mode)
	case strings.HasPrefix(spec.Device, "/dev/"), strings.Contains(spec.Device, "="):
		p, err := d.disk.Find(spec.Device)
		if err != nil {
			return nil, err
		}
		return d.keep(p.OpenWindow(0, p.Size, mode))
	}
	if _, err := os.Stat(spec.Device); errors.Is(err, fs.ErrNotExist) && mode != blockdev.ReadOnly {
		if err := makeFile(spec.Device, state.FileSize); err != nil {
			return nil, err
		}
	}
	return d.keep(blockdev.OpenPath(spec.Device, 0, 0, mode))
}

// makeFile makes a file of zeros that is complete or not there, whatever the power does.
func makeFile(path string, size int) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, size))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// state is what is remembered.
func (m *memory) state() state.State {
	if m.store == nil {
		return state.State{Floor: m.release.RollbackIndex}
	}
	return m.store.State()
}

// Floor implements update.State.
func (m *memory) Floor() int64 { return m.state().Floor }

// Record implements update.State.
func (m *memory) Record(r update.Record) error {
	return m.change(r.At, r.Signed, func(s *state.State) {
		s.Put(r.Slot, r.Role, state.Image{
			Version: r.Version, RollbackIndex: r.RollbackIndex, ImageChecksum: r.ImageChecksum, BmapChecksum: r.BmapChecksum,
			Signed: r.Signed, At: r.At.UTC().Truncate(time.Second), Result: state.Result(r.Outcome),
			Size: r.Size, Source: m.source, Signer: strings.Join(r.Signers, " "), Seconds: rounded(r.Seconds),
		}, r.Detail)
	})
}

// rounded are times to the millisecond: more would only fill the store.
func rounded(t update.Timings) map[string]float64 {
	if t == nil {
		return nil
	}
	m := make(map[string]float64, len(t))
	for phase, s := range t {
		m[string(phase)] = math.Round(s*1000) / 1000
	}
	return m
}

// rememberGood and rememberBad note what was said of a slot.
func (m *memory) rememberGood(slot string) error {
	now := m.now()
	return m.change(now, time.Time{}, func(s *state.State) { s.MarkGood(slot, now) })
}

func (m *memory) rememberBad(slot string) error {
	now := m.now()
	return m.change(now, time.Time{}, func(s *state.State) { s.MarkBad(slot, now) })
}

// now is the trusted clock, in seconds.
func (m *memory) now() time.Time {
	t, _ := verify.TrustedClock(buildTime(), m.state().Time)
	return t.UTC().Truncate(time.Second)
}

// timeStep is how much later it must be for the time alone to be worth a write.
const timeStep = 24 * time.Hour

// change makes a change of the store, and records the time with it.
func (m *memory) change(now, signed time.Time, change func(*state.State)) error {
	if m.store == nil {
		return nil
	}
	return m.store.Update(func(s *state.State) {
		attested := []time.Time{buildTime(), signed}
		for _, roles := range s.Slots {
			for _, i := range roles {
				attested = append(attested, i.Signed)
			}
		}
		events := len(s.History)
		change(s)
		t := verify.Recordable(now, attested...).UTC().Truncate(time.Second)
		if t.Sub(s.Time) >= timeStep || t.After(s.Time) && len(s.History) != events {
			s.Time = t
		}
	})
}
