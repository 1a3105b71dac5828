package powercut

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"updater/update"
)

// firstTouch is a slot that calls touch before anything changes it.
type firstTouch struct {
	update.Target
	touch func() error
}

func (f firstTouch) WriteAt(p []byte, off int64) (int, error) {
	if err := f.touch(); err != nil {
		return 0, err
	}
	return f.Target.WriteAt(p, off)
}

func (f firstTouch) Zero(off, n int64) error {
	return errors.Join(f.touch(), f.Target.Zero(off, n))
}

func (f firstTouch) Discard(off, n int64) error {
	return errors.Join(f.touch(), f.Target.Discard(off, n))
}

// touching watches an install: inspect sees the disk before every change of the slot.
func touching(d *device, inspect func() error) (touched *int) {
	touched = new(int)
	d.hooks.target = func(t update.Target) update.Target {
		return firstTouch{t, func() error { *touched++; return inspect() }}
	}
	return touched
}

// bootable returns an error when the boot loader would ever choose the slot, if the drive keeps only the flushed writes
// or also some of those that it may lose.
func (d *device) bootable(slot string) error {
	for _, disk := range [][]byte{d.disk.Medium(), d.disk.Cut(1), d.disk.Cut(2)} {
		if chain := d.loader.chain(disk); slices.Contains(chain, slot) {
			return fmt.Errorf("slot %s is being changed, and the boot loader would choose %q", slot, chain)
		}
	}
	return nil
}

// A real install on each loader's state: when the first byte of the slot is about to change, and at every later
// change, the slot is already unbootable on the medium, for any loss of the drive's cache.
func TestInvalidateBeforeFirstByte(t *testing.T) {
	for _, l := range loaders() {
		t.Run(l.name, func(t *testing.T) {
			for seed := range uint64(4) {
				d := newGoodDevice(t, l, seed+1)
				touched := touching(d, func() error { return d.bootable("B") })
				if _, err := d.install(t.Context(), d.images[2]); err != nil || *touched == 0 {
					t.Fatalf("seed %d: install = %v after %d changes", seed+1, err, *touched)
				}
				if err := d.bootable("B"); err == nil {
					t.Errorf("seed %d: slot B was installed and never boots", seed+1)
				}
			}
		})
	}
}

// The test above finds the mistake: an install whose boot state claims to have marked the slot bad, and has not, fails it.
func TestInvalidateBeforeFirstByteFindsTheMistake(t *testing.T) {
	d := newGoodDevice(t, grubLoader(), 1)
	d.hooks.boot = func(b update.Boot) update.Boot { return keepsSlot{b} }
	found := errors.New("found")
	touching(d, func() error {
		if err := d.bootable("B"); err != nil {
			return found
		}
		return nil
	})
	if _, err := d.install(t.Context(), d.images[2]); !errors.Is(err, found) {
		t.Errorf("install = %v; want the mistake found", err)
	}
}
