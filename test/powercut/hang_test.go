package powercut

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/initramfs"
	"updater/internal/crashdisk"
	"updater/update"
)

// stall delays the operations of a device: each by slow, and the one with the number at for ever, until release is closed.
type stall struct {
	n       atomic.Int64
	at      int64
	behind  bool // the operation at is carried out first
	slow    time.Duration
	release chan struct{}
}

func stalled[T any](s *stall, op func() (T, error)) (T, error) {
	n := s.n.Add(1)
	time.Sleep(s.slow)
	if n == s.at && !s.behind {
		<-s.release
	}
	v, err := op()
	if n == s.at && s.behind {
		<-s.release
	}
	return v, err
}

func (s *stall) err(op func() error) error {
	_, err := stalled(s, func() (int, error) { return 0, op() })
	return err
}

// stalledFile is a descriptor of a slot.
type stalledFile struct {
	blockdev.File
	s *stall
}

func (f stalledFile) Pread(p []byte, off int64) (int, error) {
	return stalled(f.s, func() (int, error) { return f.File.Pread(p, off) })
}

func (f stalledFile) Pwrite(p []byte, off int64) (int, error) {
	return stalled(f.s, func() (int, error) { return f.File.Pwrite(p, off) })
}

func (f stalledFile) SyncRange(off, n int64, flags blockdev.SyncFlags) error {
	return f.s.err(func() error { return f.File.SyncRange(off, n, flags) })
}

func (f stalledFile) ZeroOut(off, n int64) error {
	return f.s.err(func() error { return f.File.ZeroOut(off, n) })
}

func (f stalledFile) Datasync() error { return f.s.err(f.File.Datasync) }

// stalledArea is a place of boot state.
type stalledArea struct {
	boot.Area
	s *stall
}

func (a stalledArea) ReadBackAt(p []byte, off int64) (int, error) {
	return stalled(a.s, func() (int, error) { return a.Area.ReadBackAt(p, off) })
}

func (a stalledArea) WriteAt(p []byte, off int64) (int, error) {
	return stalled(a.s, func() (int, error) { return a.Area.WriteAt(p, off) })
}

func (a stalledArea) Sync() error { return a.s.err(a.Area.Sync) }

// stalling puts s between the installer and the disk.
func (d *device) stalling(s *stall) {
	d.hooks.files = func(f blockdev.Files) blockdev.Files {
		f.Main, f.Sentinel = stalledFile{f.Main, s}, stalledFile{f.Sentinel, s}
		if f.Direct != nil {
			f.Direct = stalledFile{f.Direct, s}
		}
		return f
	}
	d.hooks.areas = func(list []boot.Area) []boot.Area {
		for i, a := range list {
			list[i] = stalledArea{a, s}
		}
		return list
	}
}

// watched installs under a watch as the recovery does. It returns as soon as the work is overdue, with the power off.
func (d *device) watched(s *stall) (late bool, err error) {
	work := new(initramfs.Work)
	d.progress = new(update.Progress)
	work.Begin("installing", initramfs.StepBound)
	ended := make(chan error, 1)
	go func() {
		_, err := d.install(context.Background(), d.images[2])
		ended <- err
	}()
	for moves := int64(0); ; {
		select {
		case err := <-ended:
			return late, err
		case <-time.After(time.Second):
		}
		if n := d.progress.Moves(); n != moves {
			moves = n
			work.Progress()
		}
		if _, _, late = work.Overdue(); late {
			d.disk.PowerOff()
			close(s.release)
			return late, <-ended
		}
	}
}

// TestHang: if any operation of an install never ends, the watch notices it, no sooner than its bound, and a slot boots after the watchdog's
// reset. A drive that is slow in every operation does not trigger it.
func TestHang(t *testing.T) {
	start := time.Now()
	var hangs, states int
	for _, l := range []*loader{grubLoader(), ubootLoader()} {
		for seed := uint64(1); seed <= 3; seed++ {
			for n := int64(0); ; n += 1 + int64(seed)%3 {
				d := newGoodDevice(t, l, seed)
				if d.file { // its folder does not stall
					break
				}
				done := false
				synctest.Test(t, func(t *testing.T) {
					s := &stall{at: n, behind: n%2 == 1, release: make(chan struct{})}
					if n == 0 {
						s.slow = 10 * time.Second
					}
					d.stalling(s)
					began := time.Now()
					late, err := d.watched(s)
					switch took := time.Since(began); {
					case n == 0 && (late || err != nil):
						t.Errorf("%s, seed %d: an install on a slow drive: overdue %v, %v", l.name, seed, late, err)
					case n > 0 && !late && err == nil:
						done = s.n.Load() < n // there is no such operation
						if !done {
							t.Errorf("%s, seed %d: operation %d hangs, and the install succeeds", l.name, seed, n)
						}
					case n > 0 && (!late || took < initramfs.StepBound || took > 2*initramfs.StepBound):
						t.Errorf("%s, seed %d: operation %d hangs: overdue %v after %s, %v", l.name, seed, n, late, took, err)
					}
				})
				if done || t.Failed() {
					break
				}
				if n > 0 {
					hangs++
					k, err := d.crashes(crashdisk.Plan{Limit: 60, Random: 1, Torn: 1, DropOne: 2})
					if states += k; err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if hangs < 50 {
		t.Errorf("only %d operations were tried", hangs)
	}
	count(t, "crash states after an operation that never ends", int64(states), start)
}
