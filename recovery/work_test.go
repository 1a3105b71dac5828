package recovery

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"testing/synctest"
	"time"

	"updater/bmap"
	"updater/device/config"
	"updater/initramfs"
	"updater/update"
)

// slow takes a time to read anything, which is zero.
type slow time.Duration

func (s slow) ReadBackAt(p []byte, _ int64) (int, error) {
	time.Sleep(time.Duration(s))
	clear(p)
	return len(p), nil
}

// TestWatch: work on a slow medium is never overdue, work on one that does not answer is.
func TestWatch(t *testing.T) {
	sum := sha256.Sum256(make([]byte, 1<<20))
	var ranges []bmap.Range
	for off := int64(0); off < 8<<20; off += 1 << 20 {
		ranges = append(ranges, bmap.Range{Offset: off, Length: 1 << 20, Checksum: hex.EncodeToString(sum[:])})
	}
	m, err := bmap.FromRanges(8<<20, "sha256", ranges)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		read time.Duration
		late bool
	}{{4 * time.Minute, false}, {time.Hour, true}} {
		synctest.Test(t, func(t *testing.T) {
			d := &Device{Config: new(config.Config), Work: new(initramfs.Work)}
			p := new(update.Progress)
			stop := d.watch(p)
			ended := make(chan error, 1)
			go func() { ended <- update.CheckSlot(t.Context(), &update.Document{Map: m}, slow(c.read), p) }()
			late := false
			for {
				select {
				case err := <-ended:
					if err != nil || late != c.late {
						t.Errorf("reads of %s: %v; overdue %v; want %v", c.read, err, late, c.late)
					}
					stop()
					return
				case <-time.After(time.Second):
					_, _, over := d.Work.Overdue()
					late = late || over
				}
			}
		})
	}
	d := &Device{Config: new(config.Config)}
	if flush, check := d.bound(update.PhaseFlush), d.bound(update.PhaseCheck); flush < 5*time.Minute || check <= defaultGiveUp {
		t.Errorf("a flush may take %s, and a phase that waits for a server %s", flush, check)
	}
}
