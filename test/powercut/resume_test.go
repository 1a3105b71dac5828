package powercut

import (
	"errors"
	"testing"

	"updater/blockdev"
	"updater/internal/crashdisk"
	"updater/update"
)

// TestResumeWritesOneWindowTwice cuts the power at every operation of an install, loses all unflushed writes of the
// drive, and installs again: bytes that were written before the last checkpoint are not written again.
func TestResumeWritesOneWindowTwice(t *testing.T) {
	const checkpoint, window, longestRange = 16 << 10, 4 << 10, 16 << 10
	worst, runs := int64(0), 0
	for _, engine := range []string{blockdev.Paced, blockdev.Direct} {
		for seed := range uint64(6) {
			for n := 1; ; n += 3 {
				d := newGoodDevice(t, grubLoader(), seed)
				d.w = blockdev.WriterOptions{Engine: engine, Window: window, Checkpoint: checkpoint, InFlight: 1}
				d.sizes.Budget = 0
				d.disk.Inject(crashdisk.Fault{N: n, Kind: crashdisk.EIO, Sticky: true})
				if _, err := d.install(t.Context(), d.images[2]); err == nil {
					break
				}
				first := d.wrote("B")
				d.power(d.disk.Medium())
				_, err := d.install(t.Context(), d.images[2])
				if _, done := errors.AsType[*update.NothingError](err); done {
					continue // the switch was durable
				}
				if err != nil {
					t.Fatalf("%s, seed %d, cut at %d: the second install: %v", engine, seed, n, err)
				}
				twice := int64(0)
				for i, again := range d.wrote("B") {
					if again && first[i] {
						twice++
					}
				}
				// A checkpoint's bytes, those that the engine had not issued by then, and the rest of the range.
				if limit := int64(checkpoint + 2*window + longestRange); twice > limit {
					t.Errorf("%s, seed %d, cut at %d: %d bytes were written twice; want at most %d\n%v", engine, seed, n, twice, limit, d.disk.Trace())
				}
				worst, runs = max(worst, twice), runs+1
			}
		}
	}
	t.Logf("%d cuts; at most %d bytes written twice, with a checkpoint every %d", runs, worst, checkpoint)
}

// wrote reports for each byte of a slot whether a command wrote it since the device was switched on.
func (d *device) wrote(slot string) []bool {
	out := make([]bool, slotSize)
	for _, op := range d.disk.Trace() {
		if op.Name != "write-out" && op.Name != "direct write" || op.Err != nil {
			continue
		}
		for i := max(0, op.Off-slotOffset(slot)); i < min(slotSize, op.Off+op.Len-slotOffset(slot)); i++ {
			out[i] = true
		}
	}
	return out
}
