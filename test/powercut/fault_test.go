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
	}
)

// TestEveryFault makes every operation of an install fail in every way. A fault that the drive reports never ends in
// success. One that it does not report may, but only when the medium holds the image all the same: it was repaired,
// or did no harm. Whatever happened, every state after a power cut boots.
func TestEveryFault(t *testing.T) {
	start := time.Now()
	var runs, states atomic.Int64
	for k, l := range loaders() {
		engines, step := []string{blockdev.Paced, blockdev.Direct}, 1
		if k >= 2 { // the data takes the same way with every loader
			engines = engines[:1]
		}
		if l.long && scale("UPDATER_PROOF_SEEDS", 200) <= 200 {
			step = 4
		}
		for i, engine := range engines {
			for _, fault := range append(append([]crashdisk.Fault{}, loud...), silent...) {
				for n := 1; ; n += step {
					d := newGoodDevice(t, l, uint64(i+1))
					d.w.Engine, d.w.InFlight = engine, 1
					f := fault
					f.N = n
					d.disk.Inject(f)
					_, err := d.install(t.Context(), d.images[2])
					if d.disk.Operations() < n {
						if n < 20 {
							t.Fatalf("an install has %d operations: %v", d.disk.Operations(), err)
						}
						break
					}
					runs.Add(1)
					if d.disk.Fired() == 0 {
						continue
					}
					if bad := d.judge(f, err); bad != nil {
						t.Fatalf("%s, %s, %v: Install = %v: %v", l.name, engine, f, err, bad)
					}
					if err == nil {
						d.disk.Mark(promise("B", d.images[2]))
					}
					count, cerr := d.crashes(crashdisk.Plan{Limit: 60, Random: 1, Torn: 1, DropOne: 2})
					states.Add(int64(count))
					// A flush that lies breaks every promise that software can make of a cut.
					if cerr != nil && f.Kind != crashdisk.LyingFlush {
						t.Fatalf("%s, %s, %v: Install = %v: %v", l.name, engine, f, err, cerr)
					}
				}
			}
		}
	}
	count(t, "installs with a fault", runs.Load(), start)
	count(t, "crash states after a fault", states.Load(), start)
}

// judge says what is wrong about the end of an install in which f happened.
func (d *device) judge(f crashdisk.Fault, err error) error {
	isSilent := f.Kind == crashdisk.BitFlip || f.Kind == crashdisk.BitRot || f.Kind == crashdisk.LostWrite || f.Kind == crashdisk.LyingFlush
	content := d.disk.Medium()
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

// onlyReadsFailed reports whether every failed operation is a read, which another copy, or writing what could not be compared, may
// make up for.
func (d *device) onlyReadsFailed() bool {
	return !slices.ContainsFunc(d.disk.Trace(), func(o crashdisk.Op) bool { return o.Err != nil && o.Name != "read" })
}
