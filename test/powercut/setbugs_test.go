package powercut

import (
	"context"
	"errors"
	"testing"
	"time"

	"updater/blockdev"
	"updater/internal/crashdisk"
	"updater/state"
	"updater/update"
)

// Mistakes that only a slot of several roles, or one with a file, can show.

// firstPart calls after when the first flush of an install, that of its first role, is done.
func firstPart(d *device, after func() error) {
	parts := 0
	d.hooks.target = func(t update.Target) update.Target {
		if parts++; parts > 1 {
			return t
		}
		return &target{Target: t, flush: func() error { return errorsFirst(t.Flush(), after) }}
	}
}

// lateBoot is a boot state that invalidates only when asked.
type lateBoot struct {
	update.Boot
	invalidate *func() error
}

func (b lateBoot) Invalidate(ctx context.Context, slot string) error {
	*b.invalidate = func() error { return b.Boot.Invalidate(ctx, slot) }
	return nil
}

// earlyState records the outcome of a whole slot when asked.
type earlyState struct {
	update.State
	installed *func() error
}

func (s earlyState) Record(records ...update.Record) error {
	*s.installed = func() error {
		done := append([]update.Record(nil), records...)
		for i := range done {
			done[i].Outcome = update.OutcomeInstalled
		}
		return s.State.Record(done...)
	}
	return s.State.Record(records...)
}

func setBugs() []bug {
	return []bug{
		{name: "the switch comes after the first part", set: true, plant: func(d *device) {
			firstPart(d, func() error {
				b, err := d.backend()
				if err != nil {
					return err
				}
				return b.Activate(context.Background(), "B", 1)
			})
		}},
		{name: "the slot is invalidated after the first write", set: true, plant: func(d *device) {
			d.w.Engine = blockdev.Paced // direct writes wait for a whole buffer
			var invalidate func() error
			d.hooks.boot = func(b update.Boot) update.Boot { return lateBoot{b, &invalidate} }
			d.hooks.target = func(t update.Target) update.Target {
				return &target{Target: t, write: func(p []byte, off int64) (int, error) {
					n, err := t.WriteAt(p, off)
					if late := invalidate; err == nil && late != nil {
						invalidate, err = nil, late()
					}
					return n, err
				}}
			}
		}},
		{name: "installed is recorded after the first part", set: true, plant: func(d *device) {
			var installed func() error
			d.hooks.state = func(s update.State) update.State { return earlyState{s, &installed} }
			firstPart(d, func() error { return installed() })
		}},
		{name: "a file role is renamed before it is synced: the folder's fsync passes for the file's (read-back from the cache)", file: true, plant: func(d *device) {
			d.w = blockdev.WriterOptions{Engine: blockdev.Paced, Window: 1 << 20, Checkpoint: 1 << 30}
			d.hooks.file = func(f *roleFile, t update.Target) update.Target {
				cache := f.node.Open()
				return &target{Target: t, flush: func() error { return nil }, readBack: func(p []byte, off int64) (int, error) {
					return cache.Pread(p, int64(extentsAt+f.extent*extentSize)+off)
				}}
			}
		}},
		{name: "the folder of a file role is not synced after the rename", file: true, plant: func(d *device) {
			d.hooks.unsynced = true
		}},
		{name: "a mixed set is activated and marked good", set: true, life: mixedGood},
		{name: "the floor is that of one role", set: true, life: floorOfOneRole},
	}
}

// cutInSecondPart installs into B until the first write of the second role, and restarts the device.
func (d *device) cutInSecondPart(t *testing.T) {
	parts := 0
	d.hooks.target = func(w update.Target) update.Target {
		if parts++; parts != 2 {
			return w
		}
		return &target{Target: w, write: func([]byte, int64) (int, error) { return 0, errors.New("the power fails") }}
	}
	_, _ = d.install(t.Context(), d.images[2])
	d.hooks = hooks{}
	d.power(d.disk.Medium())
}

// mixedGood: a person activates a slot whose second role was not written, boots it and marks it good.
func mixedGood(t *testing.T, d *device, planted bool) (int, error) {
	d.cutInSecondPart(t)
	m, err := d.memory()
	if err != nil {
		return 0, err
	}
	s := m.State()
	if err := s.OneRelease("B", roleNames[:d.roles]); err != nil && !planted {
		return 1, nil
	}
	b, err := d.backend()
	if err != nil {
		return 0, err
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		return 0, err
	}
	d.booted = "B"
	if b, err = d.backend(); err == nil {
		err = b.MarkGood(t.Context(), "B")
	}
	if err != nil {
		return 0, err
	}
	return d.crashes(crashdisk.Plan{Limit: 50})
}

// floorOfOneRole: a slot of which one role is recorded as installed is marked good in the state store.
func floorOfOneRole(t *testing.T, d *device, planted bool) (int, error) {
	d.cutInSecondPart(t)
	m, err := d.memory()
	if err != nil {
		return 0, err
	}
	err = m.Update(func(s *state.State) {
		one := s.Slots["B"][fileRole]
		one.Result = state.Installed
		s.Put("B", fileRole, one, "")
	})
	if err == nil {
		err = m.Update(func(s *state.State) {
			if s.MarkGood("B", time.Time{}); planted {
				s.Floor = s.Slots["B"][fileRole].RollbackIndex
			}
		})
	}
	if err != nil {
		return 0, err
	}
	return d.crashes(crashdisk.Plan{Limit: 50})
}
