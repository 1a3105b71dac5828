package device

import (
	"errors"
	"fmt"
	"io/fs"
	gomaps "maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/device/config"
	"updater/internal/atomicfile"
	"updater/release"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// Warning is a problem that weakens a guarantee and stops nothing.
type Warning struct {
	Text string
	New  bool // it is about a state store before its first install
}

// openStore opens the configured state store. It changes nothing, but creates the file of a new one. The store of a target counts only where it
// lies on the target's own disk.
func (d *Device) openStore(mode blockdev.Mode) error {
	spec, fallback := d.Config.State, state.State{Floor: d.Config.Release.RollbackIndex}
	d.known = fallback
	if spec.Device == "" || d.target && !strings.Contains(spec.Device, "=") {
		return nil
	}
	area, err := d.openStateArea(mode)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mode == blockdev.ReadOnly:
		d.warn(true, "the state store %s does not exist yet; the floor is %d", spec.Device, fallback.Floor)
		return nil
	case err != nil:
		return &state.Error{Area: spec.Device, Err: err}
	}
	if d.store, err = state.Open(area, fallback); err != nil {
		return err
	}
	d.known = d.store.State()
	d.maps = state.OpenDocuments(area, d.Config.SlotParts())
	d.chain = state.OpenChain(area)
	d.keyrings = nil
	if kept := d.chain.Get(); kept != nil {
		if d.keyrings, err = release.DecodeChain(kept); err != nil {
			d.warn(false, "the state store %s: %v", area, err)
		}
	}
	switch lost := d.store.Lost(); {
	case lost != "" && d.store.New():
		d.warn(true, "the state store %s is new: nothing was installed by this program yet, and the floor is %d", area, fallback.Floor)
	case lost != "":
		d.warn(false, "the state store %s: %s; the installed images are not known, and the floor is %d, that of the running system's configuration",
			area, lost, fallback.Floor)
	}
	if bad := d.store.Degraded(); bad != "" {
		d.warn(false, "the state store %s: %s", area, bad)
	}
	return nil
}

func (d *Device) warn(isNew bool, format string, a ...any) {
	d.session.warnings = append(d.session.warnings, Warning{Text: fmt.Sprintf(format, a...), New: isNew})
}

// Warnings lists what is wrong with the state store.
func (d *Device) Warnings() []Warning { return d.warnings }

// Remembers reports whether a state store is configured.
func (d *Device) Remembers() bool { return d.Config.State.Device != "" }

// Known is the content of a device's state store when it was read.
type Known struct {
	state.State
	Warnings []Warning
	Keyrings []release.Link // that were installed in the field
}

// ReadState reads the state store of a device and nothing else. It takes no lock. Errors: [state.Error] and those of opening the disk.
func ReadState(c *config.Config) (*Known, error) {
	d, err := openDisk(c)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	defer d.end()
	if err := d.openStore(blockdev.ReadOnly); err != nil {
		return nil, err
	}
	return &Known{State: d.known, Warnings: d.session.warnings, Keyrings: d.keyrings}, nil
}

// openStateArea opens a partition of the disk, a window of one or of any device, or a file, which it makes. A whole disk must be given as a
// window, so that its partition table is never overwritten by mistake.
func (d *Device) openStateArea(mode blockdev.Mode) (*blockdev.Device, error) {
	spec := d.Config.State
	switch {
	case spec.Size > 0:
		return d.openArea(spec.Area, mode)
	case strings.HasPrefix(spec.Device, "/dev/"), strings.Contains(spec.Device, "="):
		p, err := d.find("state", spec.Device)
		if err != nil {
			return nil, err
		}
		return d.keep(p.OpenWindow(0, p.Size, mode))
	}
	info, err := os.Stat(spec.Device)
	// vfat's rename is not atomic: a power cut while the file is made may leave it empty.
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		if mode == blockdev.ReadOnly {
			return nil, &fs.PathError{Op: "open", Path: spec.Device, Err: fs.ErrNotExist}
		}
		if err := atomicfile.Write(spec.Device, make([]byte, state.FileSize), 0o600); err != nil {
			return nil, err
		}
	}
	return d.keep(blockdev.OpenPath(spec.Device, 0, 0, mode))
}

// State is the content of the state store when it was read last. Without a store it is that of the configuration.
func (d *Device) State() state.State { return d.known }

// Floor implements update.State.
func (d *Device) Floor() int64 { return d.known.Floor }

// Record implements update.State. An install that is not the only one to change its slot, or that the floor has overtaken, ends here.
func (d *Device) Record(records ...update.Record) error {
	return d.locked(func() error {
		for _, r := range records {
			if err := d.mayRecord(r); err != nil {
				return err
			}
		}
		err := d.change(records[0].At, func(s *state.State) {
			for _, r := range records {
				s.Put(r.Slot, r.Role, d.imageOf(r), r.Detail)
				if r.Outcome == update.OutcomeInstalled {
					s.Request = nil
				}
			}
		}, records[0].Signed)
		if d.seen != nil && err == nil {
			d.seen.slots = d.known.Slots
		}
		return err
	})
}

// Release implements update.State. The release of a running slot without a record is that of the configuration, which has no identity.
func (d *Device) Release(slot string) update.Record {
	records := d.known.Slots[slot]
	if own := d.Config.Release; len(records) == 0 && slot == d.booted && own != (config.Release{}) {
		return update.Record{Slot: slot, Outcome: update.OutcomeInstalled, Version: own.Version, RollbackIndex: own.RollbackIndex}
	}
	if len(records) == 0 || d.oneRelease(slot) != nil {
		return update.Record{}
	}
	r := update.Record{Slot: slot, Outcome: update.OutcomeInstalled}
	for _, image := range records {
		r.Version, r.RollbackIndex, r.Release, r.Created = image.Version, image.RollbackIndex, image.Release, image.Created
		if !image.Result.Whole() {
			r.Outcome = update.OutcomeBad
		}
	}
	return r
}

// mayRecord compares the record of a slot with the one that the install under way has seen, and its index with the floor.
func (d *Device) mayRecord(r update.Record) error {
	if d.seen == nil {
		return nil
	}
	if now, was := d.known.Slots[r.Slot][r.Role], d.seen.slots[r.Slot][r.Role]; !now.Same(was) {
		return &ChangedError{fmt.Sprintf("the record of %s in slot %s is another one", r.Role, r.Slot)}
	}
	if r.Outcome != update.OutcomeFailed && r.RollbackIndex < d.known.Floor && r.Slot != d.restoring {
		return &update.RollbackError{Index: r.RollbackIndex, Floor: d.known.Floor}
	}
	return nil
}

func (d *Device) imageOf(r update.Record) state.Image {
	return state.Image{
		Version: r.Version, RollbackIndex: r.RollbackIndex, ImageChecksum: r.ImageChecksum, BmapChecksum: r.BmapChecksum, Release: r.Release, Created: r.Created,
		Signed: r.Signed, At: r.At.UTC().Truncate(time.Second), Result: state.Result(r.Outcome),
		Size: r.Size, Source: d.Source, Signer: strings.Join(r.Signers, " "), Seconds: rounded(r.Seconds),
	}
}

// rounded returns the times to the millisecond: more digits would only fill the store.
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

// Now is the trusted clock, in seconds.
func (d *Device) Now() time.Time {
	t, _ := verify.TrustedClock(d.Config.Build.Time, d.known.Time)
	return t.UTC().Truncate(time.Second)
}

// timeStep is how far the clock must advance for the time alone to be worth a write.
const timeStep = 24 * time.Hour

// change makes a change of the store, and records the time with it. The caller holds the boot lock.
func (d *Device) change(now time.Time, change func(*state.State), signed ...time.Time) error {
	if d.store == nil {
		return nil
	}
	err := d.store.Update(func(s *state.State) {
		attested := append(signed, d.Config.Build.Time)
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
	d.known = d.store.State()
	return err
}

// KeepDocument keeps the signed document of the content of a slot's role, for the recovery. The signature is nil for a clearsigned
// one. Without a state store nothing is kept. Errors: [state.Error].
func (d *Device) KeepDocument(slot, role string, doc, signature []byte) error {
	return d.locked(func() error { return d.maps.Put(slot+"/"+role, doc, signature) })
}

// KeepRelease keeps the signed release of a slot and the block map of each role, for the recovery. The signature is nil for a clearsigned
// document. Without a state store nothing is kept. Errors: [StoreError].
func (d *Device) KeepRelease(slot string, doc, signature []byte, maps map[string][]byte) error {
	proof := encodeProof(doc, signature)
	return d.locked(func() error {
		for _, role := range slices.Sorted(gomaps.Keys(maps)) {
			if err := d.maps.Put(slot+"/"+role, maps[role], proof); err != nil {
				return err
			}
		}
		return nil
	})
}
