package blockdev_test

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/blockdev"
)

// drain accepts writes at once and delays every flush, or every second one.
type drain struct {
	blockdev.File
	flush  time.Duration
	second bool
	syncs  *int
}

func (d drain) Pread(p []byte, _ int64) (int, error)             { return len(p), nil }
func (d drain) Pwrite(p []byte, _ int64) (int, error)            { return len(p), nil }
func (d drain) SyncRange(int64, int64, blockdev.SyncFlags) error { return nil }
func (d drain) DropCache(int64, int64)                           {}
func (d drain) Close() error                                     { return nil }
func (d drain) Datasync() error {
	if *d.syncs++; !d.second || *d.syncs%2 == 0 {
		time.Sleep(d.flush)
	}
	return nil
}

// TestCheckpointAdapts: a checkpoint is 8 MiB on a slow device, 32 MiB on a fast one and for Paced, and up to 128 MiB if flushes are slow. One
// slow flush changes nothing. A configured checkpoint stays.
func TestCheckpointAdapts(t *testing.T) {
	for _, c := range []struct {
		write, flush time.Duration // of 1 MiB; of a flush
		second       bool
		engine       string
		checkpoint   int64
		barriers     int // in 512 MiB
	}{
		{25 * time.Millisecond, time.Millisecond, false, blockdev.Direct, 0, 64},
		{25 * time.Millisecond, time.Millisecond, false, blockdev.Paced, 0, 4 + 14},
		{12500 * time.Microsecond, 0, false, blockdev.Direct, 0, 64},
		{12 * time.Millisecond, 0, false, blockdev.Direct, 0, 2 + 31}, // after 8 and 16 MiB, then every 16
		{25 * time.Millisecond, 10 * time.Millisecond, false, blockdev.Direct, 0, 2 + 31},
		{25 * time.Millisecond, 30 * time.Millisecond, false, blockdev.Direct, 0, 4 + 14}, // after 8, 16, 32 and 48 MiB, then every 32
		{time.Millisecond, 0, false, blockdev.Direct, 0, 4 + 14},
		{7 * time.Millisecond, 32 * time.Millisecond, false, blockdev.Direct, 0, 4 + 14},  // an eighth, not more
		{10 * time.Millisecond, 60 * time.Millisecond, false, blockdev.Direct, 0, 6 + 6},  // two each of 8, 16 and 32, then every 64 MiB
		{10 * time.Millisecond, 300 * time.Millisecond, false, blockdev.Direct, 0, 8 + 2}, // two each of 8, 16, 32 and 64, then every 128 MiB
		{10 * time.Millisecond, 100 * time.Millisecond, false, blockdev.Direct, 64 << 20, 8},
		{25 * time.Millisecond, 150 * time.Millisecond, true, blockdev.Direct, 0, 64},
	} {
		synctest.Test(t, func(t *testing.T) {
			syncs := 0
			d := drain{flush: c.flush, second: c.second, syncs: &syncs}
			w, err := blockdev.New("slot", blockdev.Files{Main: d, Sentinel: d, Direct: d, Size: 1 << 30, Fixed: true}).NewWriter(
				blockdev.WriterOptions{Engine: c.engine, Checkpoint: c.checkpoint})
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
