package blockdev_test

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/blockdev"
)

// drain takes everything at once; its flush takes a time.
type drain struct {
	blockdev.File
	flush time.Duration
	syncs *int
}

func (d drain) Pwrite(p []byte, _ int64) (int, error)            { return len(p), nil }
func (d drain) SyncRange(int64, int64, blockdev.SyncFlags) error { return nil }
func (d drain) DropCache(int64, int64)                           {}
func (d drain) Close() error                                     { return nil }
func (d drain) Datasync() error                                  { time.Sleep(d.flush); *d.syncs++; return nil }

// A checkpoint is 32 MiB, and up to 128 MiB where a flush takes more than an eighth of the time. One that was asked for stays.
func TestCheckpointAdapts(t *testing.T) {
	for _, c := range []struct {
		write, flush time.Duration // of 1 MiB; of a flush
		checkpoint   int64
		barriers     int // in 512 MiB
	}{
		{10 * time.Millisecond, 30 * time.Millisecond, 0, 16},
		{10 * time.Millisecond, 100 * time.Millisecond, 0, 1 + 1 + 3}, // after 32, 96, 224, 352 and 480 MiB
		{10 * time.Millisecond, 60 * time.Millisecond, 0, 1 + 7},      // after 32, then every 64 MiB
		{10 * time.Millisecond, 100 * time.Millisecond, 64 << 20, 8},
		{7 * time.Millisecond, 32 * time.Millisecond, 0, 16}, // an eighth, not more
	} {
		synctest.Test(t, func(t *testing.T) {
			syncs := 0
			d := drain{flush: c.flush, syncs: &syncs}
			w, err := blockdev.New("slot", blockdev.Files{Main: d, Sentinel: d, Direct: d, Size: 1 << 30, Fixed: true}).NewWriter(
				blockdev.WriterOptions{Engine: blockdev.Paced, Checkpoint: c.checkpoint})
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 1<<20)
			for off := range int64(512) {
				time.Sleep(c.write)
				if _, err := w.WriteAt(p, off<<20); err != nil {
					t.Fatal(err)
				}
			}
			if syncs != c.barriers || w.Barriers() != syncs {
				t.Errorf("%v for 1 MiB, %v for a flush: %d flushes, %d counted; want %d", c.write, c.flush, syncs, w.Barriers(), c.barriers)
			}
		})
	}
}
