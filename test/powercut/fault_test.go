package powercut

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"updater/blockdev"
	"updater/internal/crashdisk"
)

// loud are the faults that the drive reports; silent are those that it does not.
var (
	loud = []crashdisk.Fault{
		{Kind: crashdisk.EIO}, {Kind: crashdisk.EIO, Sticky: true}, {Kind: crashdisk.ShortWrite}, {Kind: crashdisk.ENOSPC},
		{Kind: crashdisk.FlushKeep}, {Kind: crashdisk.FlushDrop}, {Kind: crashdisk.ENODATA},
	}
	silent = []crashdisk.Fault{
		{Kind: crashdisk.BitFlip}, {Kind: crashdisk.BitFlip, Sticky: true}, {Kind: crashdisk.BitRot}, {Kind: crashdisk.BitRot, Sticky: true},
		{Kind: crashdisk.LostWrite}, {Kind: crashdisk.LostWrite, Sticky: true}, {Kind: crashdisk.LyingFlush},
		{Kind: crashdisk.EmptyFlush}, {Kind: crashdisk.Misdirected}, {Kind: crashdisk.StaleRead}, {Kind: crashdisk.StaleRead, Sticky: true},
	}
	// beyond are the lies after which software cannot guarantee what a power cut leaves, nor the bytes outside of the slot.
	beyond = []crashdisk.Kind{crashdisk.LyingFlush, crashdisk.EmptyFlush, crashdisk.Misdirected}
)

// TestEveryFault makes every operation of an install fail in every way. A fault that the drive reports never ends in
// success. An install with an unreported fault may succeed only if the medium holds the image. Every state after a power
// cut boots, unless the fault is one of beyond.
func TestEveryFault(t *testing.T) {
	start := time.Now()
	var runs, states atomic.Int64
	for k, l := range loaders() {
		t.Run(l.name, func(t *testing.T) {
			engines, step := []string{blockdev.Paced, blockdev.Direct}, 1
			short := scale("UPDATER_PROOF_SEEDS", 200) <= 200
			if k >= 2 && short { // the data path is the same with every loader
				engines, step = engines[:1], 3
			}
			if l.long && short {
				step = 6
			}
			for i, engine := range engines {
				for _, fault := range append(append([]crashdisk.Fault{}, loud...), silent...) {
					f := fault
					for f.N = 1; ; f.N += step {
						d := newGoodDevice(t, l, uint64(i+1))
						d.fixed = d.fixed && f.Kind != crashdisk.Misdirected // a later write may hit what was read back already
						d.w.Engine, d.w.InFlight = engine, 1
						fired, n := d.faulty(t, f)
						if !fired {
							break
						}
						runs.Add(1)
						states.Add(int64(n))
					}
				}
			}
		})
	}
	count(t, "installs with a fault", runs.Load(), start)
	count(t, "crash states after a fault", states.Load(), start)
}

// faulty runs an install with a fault and tries what a power cut leaves. reached is false if the install has fewer operations.
func (d *device) faulty(t *testing.T, f crashdisk.Fault) (reached bool, states int) {
	d.disk.Inject(f)
	_, err := d.install(t.Context(), d.images[2])
	if d.disk.Operations() < f.N {
		if f.N < 20 {
			t.Fatalf("an install has %d operations: %v", d.disk.Operations(), err)
		}
		return false, 0
	}
	if d.disk.Fired() == 0 {
		return true, 0
	}
	if bad := d.judge(f, err); bad != nil {
		t.Fatalf("%s, %v: Install = %v: %v", d.w.Engine, f, err, bad)
	}
	if err == nil {
		d.disk.Mark(promise("B", d.images[2]))
	}
	if slices.Contains(beyond, f.Kind) {
		return true, 0
	}
	states, cerr := d.crashes(crashdisk.Plan{Limit: 60, Random: 1, Torn: 1, DropOne: 2})
	if cerr != nil {
		t.Fatalf("%s, %v: Install = %v: %v", d.w.Engine, f, err, cerr)
	}
	return true, states
}

// judge returns what is wrong about the end of an install in which f happened.
func (d *device) judge(f crashdisk.Fault, err error) error {
	isSilent := slices.ContainsFunc(silent, func(s crashdisk.Fault) bool { return s.Kind == f.Kind })
	content := d.disk.Medium()
	if f.Kind == crashdisk.EmptyFlush {
		content = d.disk.Content() // read-back cannot see that the drive has it in its cache only
	}
	switch {
	case err == nil && !isSilent && !d.onlyReadsFailed():
		return errors.New("success in spite of an error of a write or a flush")
	case err == nil:
		if d.holds(content, "B") != d.images[2].name {
			return errors.New("success, and the medium does not hold the image")
		}
		return nil
	}
	if chain := d.loader.chain(content); chain[0] == "B" && d.holds(content, "B") == "" {
		return fmt.Errorf("the boot loader chooses %q, and slot B is not complete", chain)
	}
	return nil
}

// onlyReadsFailed reports whether every failed operation is a read, which another copy, or writing the range that could not be compared,
// may make up for, or a write into the page cache, which reaches no drive: writing whole blocks with O_DIRECT makes up for that.
func (d *device) onlyReadsFailed() bool {
	return !slices.ContainsFunc(d.disk.Trace(), func(o crashdisk.Op) bool { return o.Err != nil && o.Name != "read" && o.Name != "pwrite" })
}

// TestUnreadableSector installs into a slot in which one sector cannot be read until it is rewritten: for every place of it and every
// engine, the install succeeds and the medium holds the image.
func TestUnreadableSector(t *testing.T) {
	for _, roles := range []int{1, 3} {
		for _, engine := range []string{blockdev.Paced, blockdev.Direct, blockdev.Auto} {
			for off := slotOffset("B"); off < slotOffset("B")+slotSize; off += 512 * int64(roles) {
				d := newGoodDevice(t, grubLoader(), 1)
				d.roles = roles
				list, _ := pool(t)
				d.images[2] = list[slices.IndexFunc(list, func(i *image) bool { return len(i.data)%512 != 0 })] // its tail is a part of a sector
				d.o.Sector, d.o.NoDirect, d.o.Damage = 512, false, d.damaged
				d.w.Engine = engine
				content := d.disk.Medium()
				copy(content[off:off+512], crashdisk.Unreadable)
				d.power(content)
				img := d.images[2]
				if _, err := d.install(t.Context(), img); err != nil {
					t.Errorf("%d roles, %s, sector at %d of the slot: %v", roles, engine, off-slotOffset("B"), err)
				} else if got := d.holds(d.disk.Medium(), "B"); got != img.name {
					t.Errorf("%d roles, %s, sector at %d of the slot: the medium holds %q", roles, engine, off-slotOffset("B"), got)
				}
			}
		}
	}
}
