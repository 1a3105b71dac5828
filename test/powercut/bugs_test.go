package powercut

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/internal/crashdisk"
	"updater/update"
)

// The proof finds mistakes: those that others have made are planted, one at a time, through hooks that exist in these
// tests only, and each has to be found within 1000 states. If a second defence would hide a mistake, that one is
// removed too, and the test says so.

const stateLimit = 1000

// bug is one planted mistake.
type bug struct {
	name   string
	plant  func(d *device)
	faults []crashdisk.Kind // that bring it out, at any operation; none: a power cut is enough
	// run replaces the usual hunt, an install whose crash states are tried.
	run func(t *testing.T, d *device, seed uint64) (states int, err error)
	l   *loader // nil: grub
	// set is a mistake with several roles, file one with a role that is a file; all others are hunted with one role.
	set, file bool
	// life replaces the usual hunt, with and without the mistake.
	life func(t *testing.T, d *device, planted bool) (states int, err error)
}

// file is a descriptor with other behaviour.
type file struct {
	blockdev.File
	keepCache bool // pages are not dropped
	syncRange func(f blockdev.File, off, n int64, flags blockdev.SyncFlags) error
	datasync  func(f blockdev.File) error
}

func (f *file) SyncRange(off, n int64, flags blockdev.SyncFlags) error {
	if f.syncRange != nil {
		return f.syncRange(f.File, off, n, flags)
	}
	return f.File.SyncRange(off, n, flags)
}

func (f *file) DropCache(off, n int64) {
	if !f.keepCache {
		f.File.DropCache(off, n)
	}
}

func (f *file) Datasync() error {
	if f.datasync != nil {
		return f.datasync(f.File)
	}
	return f.File.Datasync()
}

// target is a slot with other behaviour.
type target struct {
	update.Target
	write    func(p []byte, off int64) (int, error)
	flush    func() error
	readBack func(p []byte, off int64) (int, error)
}

func (t *target) WriteAt(p []byte, off int64) (int, error) {
	if t.write != nil {
		return t.write(p, off)
	}
	return t.Target.WriteAt(p, off)
}

func (t *target) Flush() error {
	if t.flush != nil {
		return t.flush()
	}
	return t.Target.Flush()
}

func (t *target) ReadBackAt(p []byte, off int64) (int, error) {
	if t.readBack != nil {
		return t.readBack(p, off)
	}
	return t.Target.ReadBackAt(p, off)
}

// keepsSlot is a boot state that does not mark the target bad.
type keepsSlot struct{ update.Boot }

func (keepsSlot) Invalidate(context.Context, string) error { return nil }

// aside is a boot state that does something else before or after it activates.
type aside struct {
	update.Boot
	before, after func() error
}

func (a aside) Activate(ctx context.Context, slot string, tries int) error {
	if a.before != nil {
		if err := a.before(); err != nil {
			return err
		}
	}
	if err := a.Boot.Activate(ctx, slot, tries); err != nil || a.after == nil {
		return err
	}
	return a.after()
}

// areaHook is a place of boot state with another write.
type areaHook struct {
	boot.Area
	write func(p []byte, off int64) (int, error)
}

func (a areaHook) WriteAt(p []byte, off int64) (int, error) { return a.write(p, off) }

// slotFile changes the descriptors of the slot.
func slotFile(change func(main, sentinel *file)) func(*device) {
	return func(d *device) {
		d.w.Engine = blockdev.Paced
		d.hooks.files = func(f blockdev.Files) blockdev.Files {
			main, sentinel := &file{File: f.Main}, &file{File: f.Sentinel}
			change(main, sentinel)
			f.Main, f.Sentinel = main, sentinel
			return f
		}
	}
}

// cached makes read-back go through the page cache, which is not dropped.
func cached(d *device) {
	files := d.hooks.files
	d.hooks.files = func(f blockdev.Files) blockdev.Files {
		if files != nil {
			f = files(f)
		}
		f.Main = &file{File: f.Main, keepCache: true}
		return f
	}
	d.hooks.target = func(t update.Target) update.Target {
		f := d.disk.Open()
		off := slotOffset("B")
		return &target{Target: t, readBack: func(p []byte, at int64) (int, error) { return f.Pread(p, off+at) }}
	}
}

func both(plants ...func(*device)) func(*device) {
	return func(d *device) {
		for _, p := range plants {
			p(d)
		}
	}
}

var writeFaults = []crashdisk.Kind{crashdisk.EIO}

func bugs() []bug {
	noFlush := func(blockdev.File) error { return nil }
	return append(setBugs(), []bug{
		{name: "no fdatasync before the switch", plant: slotFile(func(_, s *file) { s.datasync = noFlush })},
		{name: "the switch comes before the last extent", plant: func(d *device) {
			var write func() error
			d.hooks.target = func(t update.Target) update.Target { return lastExtentLate(d, t, &write) }
			d.hooks.boot = func(b update.Boot) update.Boot { return aside{Boot: b, after: func() error { return write() }} }
		}},
		{name: "sync_file_range with W only as the barrier", plant: slotFile(func(m, s *file) {
			m.syncRange = func(f blockdev.File, off, n int64, flags blockdev.SyncFlags) error {
				return f.SyncRange(off, n, flags&blockdev.Write)
			}
			s.datasync = func(f blockdev.File) error { return f.SyncRange(0, diskSize, blockdev.Write) }
		})},
		{name: "the error of sync_file_range is ignored (no sentinel's error, read-back from the cache)", faults: writeFaults, plant: both(slotFile(func(m, s *file) {
			m.syncRange = func(f blockdev.File, off, n int64, flags blockdev.SyncFlags) error {
				_ = f.SyncRange(off, n, flags)
				return nil
			}
			s.datasync = func(f blockdev.File) error { _ = f.Datasync(); return f.Datasync() }
		}), cached)},
		{name: "fdatasync is tried again after EIO (read-back from the cache)", faults: []crashdisk.Kind{crashdisk.FlushDrop}, plant: both(slotFile(func(_, s *file) {
			s.datasync = func(f blockdev.File) error {
				if f.Datasync() == nil {
					return nil
				}
				return f.Datasync()
			}
		}), cached)},
		{name: "fdatasync on the descriptor whose sync_file_range error was dropped (read-back from the cache)", faults: writeFaults, plant: both(slotFile(func(m, s *file) {
			m.syncRange = func(f blockdev.File, off, n int64, flags blockdev.SyncFlags) error {
				_ = f.SyncRange(off, n, flags)
				return nil
			}
			s.datasync = func(blockdev.File) error { return m.File.Datasync() }
		}), cached)},
		{name: "read-back from the cache", faults: []crashdisk.Kind{crashdisk.LostWrite}, plant: both(func(d *device) { d.w.Engine = blockdev.Paced }, cached)},
		{name: "read-back before the flush", faults: []crashdisk.Kind{crashdisk.LyingFlush}, plant: verifyFirst},
		{name: "the boot state has no checksum", l: ubootWith(false), plant: func(*device) {}},
		{name: "both copies of the boot state in one flush window", l: ubootLoader(), plant: func(d *device) {
			d.hooks.areas = func(list []boot.Area) []boot.Area {
				mirror := func(a, b boot.Area) boot.Area {
					return areaHook{a, func(p []byte, off int64) (int, error) {
						if _, err := b.WriteAt(p, off); err != nil {
							return 0, err
						}
						return a.WriteAt(p, off)
					}}
				}
				return []boot.Area{mirror(list[0], list[1]), mirror(list[1], list[0])}
			}
		}},
		{name: "the target is not marked bad first", plant: func(d *device) {
			d.hooks.boot = func(b update.Boot) update.Boot { return keepsSlot{b} }
		}},
		{name: "a record of progress is kept before the flush and trusted (read-back trusts it too)", plant: func(*device) {}, run: trustsRecord},
		{name: "compare before write on a stale cache (read-back believes what was equal)", plant: func(*device) {}, run: staleCompare},
		{name: "a state file without fsync of its folder", plant: func(*device) {}, run: noFolderSync},
		{name: "data is written after the last flush", plant: func(d *device) {
			d.hooks.target = func(t update.Target) update.Target { return writesAfterFlush(t) }
		}},
	}...)
}

// TestSeededBugs: each mistake is found, and the same hunt finds nothing without it.
func TestSeededBugs(t *testing.T) {
	start := time.Now()
	for _, b := range bugs() {
		t.Run(b.name, func(t *testing.T) {
			states, err := b.hunt(t, true, stateLimit)
			if err == nil {
				t.Fatalf("not found in %d states", states)
			}
			t.Logf("found after %d states: %.160v", states, err)
			if _, err := b.hunt(t, false, 2*states); err != nil {
				t.Errorf("the hunt finds something without the bug: %v", err)
			}
		})
	}
	count(t, "seeded bugs found", int64(len(bugs())), start)
}

// hunt runs installs, with every fault at every operation, until a state is wrong or the limit is reached.
func (b bug) hunt(t *testing.T, planted bool, limit int) (states int, err error) {
	for seed := uint64(1); states < limit && seed < 40; seed++ {
		for _, f := range b.shots() {
			l := b.l
			if l == nil || !planted {
				l = grubLoader()
				if b.l != nil {
					l = ubootLoader()
				}
			}
			d := newGoodDevice(t, l, seed)
			if (b.set || b.file) != (d.roles > 1) || b.file && !d.file {
				continue
			}
			d.w.InFlight = 1
			d.w.Buffer, d.sizes, d.files = 0, update.Sizes{}, blockdev.Files{} // with small ones the states before the mistake are too many
			if b.life != nil {
				n, err := b.life(t, d, planted)
				if states += n; err != nil {
					return states, err
				}
				continue
			}
			if planted {
				b.plant(d)
			}
			if b.run != nil {
				n, err := runBug(t, b, d, seed, planted)
				if states += n; err != nil {
					return states, err
				}
				continue
			}
			if f.N > 0 {
				d.disk.Inject(f)
			}
			_, ierr := d.install(t.Context(), d.images[2])
			if ierr == nil {
				d.disk.Mark(promise("B", d.images[2]))
			}
			if f.N > 0 { // the fault is the point: one look at the end
				if d.disk.Fired() == 0 {
					continue
				}
				states++
				if ierr == nil && d.holds(d.disk.Medium(), "B") == "" {
					return states, fmt.Errorf("%v: success, and the medium does not hold the image", f)
				}
				if states >= limit {
					return states, nil
				}
				continue
			}
			plan := crashdisk.Plan{Limit: limit - states}
			n, err := d.crashes(plan)
			if states += n; err != nil {
				return states, err
			}
			if states >= limit {
				return states, nil
			}
		}
	}
	return states, nil
}

// shots are the faults of a hunt, spread over the operations of an install.
func (b bug) shots() []crashdisk.Fault {
	if len(b.faults) == 0 {
		return []crashdisk.Fault{{}}
	}
	var list []crashdisk.Fault
	for n := 3; n < 90; n++ {
		for _, k := range b.faults {
			list = append(list, crashdisk.Fault{N: n, Kind: k})
		}
	}
	return list
}

func runBug(t *testing.T, b bug, d *device, seed uint64, planted bool) (int, error) {
	if !planted {
		return 1, nil // the hunts of these are their own control
	}
	return b.run(t, d, seed)
}

// lastExtentLate holds the last write back until after the switch.
func lastExtentLate(d *device, t update.Target, write *func() error) update.Target {
	var held []byte
	var at int64
	last := int64(len(d.images[2].data)-1) / 4096 * 4096
	*write = func() error {
		if held == nil {
			return nil
		}
		if _, err := t.WriteAt(held, at); err != nil {
			return err
		}
		return t.Flush()
	}
	return &target{Target: t,
		write: func(p []byte, off int64) (int, error) {
			if off+int64(len(p)) > last {
				held, at = append([]byte(nil), p...), off
				return len(p), nil
			}
			return t.WriteAt(p, off)
		},
		readBack: func(p []byte, off int64) (int, error) {
			n, err := t.ReadBackAt(p, off)
			for i := range held {
				if j := at + int64(i) - off; j >= 0 && j < int64(n) {
					p[j] = held[i]
				}
			}
			return n, err
		},
	}
}

// verifyFirst reads back from the drive's cache, and flushes only then.
func verifyFirst(d *device) {
	d.w.Engine = blockdev.Paced
	var flush func() error
	d.hooks.target = func(t update.Target) update.Target {
		flush = t.Flush
		return &target{Target: t, flush: func() error {
			return d.disk.Open().SyncRange(slotOffset("B"), slotSize, blockdev.WriteAndWait)
		}}
	}
	d.hooks.boot = func(b update.Boot) update.Boot {
		return aside{Boot: b, before: func() error { return flush() }}
	}
}

// writesAfterFlush keeps the first extent back and writes it when everything was flushed, without another flush.
func writesAfterFlush(t update.Target) update.Target {
	var held []byte
	return &target{Target: t,
		write: func(p []byte, off int64) (int, error) {
			if off == 0 {
				held = append([]byte(nil), p...)
				return len(p), nil
			}
			return t.WriteAt(p, off)
		},
		flush: func() error {
			if err := t.Flush(); err != nil {
				return err
			}
			_, err := t.WriteAt(held, 0)
			return err
		},
		readBack: func(p []byte, off int64) (int, error) {
			n, err := t.ReadBackAt(p, off)
			if off == 0 {
				copy(p[:n], held)
			}
			return n, err
		},
	}
}

// trustsRecord: an install keeps a record of its progress, before the flush; the power fails; the next one
// starts at the record. No record exists in this program: the medium itself is read.
func trustsRecord(t *testing.T, d *device, seed uint64) (int, error) {
	img := d.images[2]
	d.w.Engine, d.w.Checkpoint = blockdev.Paced, 1<<30
	var record int64
	d.hooks.target = func(w update.Target) update.Target {
		return &target{Target: w, write: func(p []byte, off int64) (int, error) {
			n, err := w.WriteAt(p, off)
			record = off + int64(n)
			return n, err
		}, flush: func() error { return errors.New("the power fails") }}
	}
	_, _ = d.install(t.Context(), img)
	trusted := record
	d.power(d.disk.Cut(seed))
	d.booted = "A"
	d.hooks.target = func(w update.Target) update.Target {
		return &target{Target: w, write: func(p []byte, off int64) (int, error) {
			if off+int64(len(p)) <= trusted {
				return len(p), nil
			}
			return w.WriteAt(p, off)
		}, readBack: believe(w, img, func(off int64) bool { return off < trusted })}
	}
	return d.finish(t, img)
}

// staleCompare: a write-out fails, counted by the seed; the next install of the same boot compares through the page cache,
// where the data looks written.
func staleCompare(t *testing.T, d *device, seed uint64) (int, error) {
	img := d.images[2]
	slotFile(func(main, _ *file) {
		calls := uint64(0)
		main.syncRange = func(f blockdev.File, off, n int64, flags blockdev.SyncFlags) error {
			if calls++; calls == seed {
				d.disk.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.EIO})
			}
			return f.SyncRange(off, n, flags)
		}
	})(d)
	_, _ = d.install(t.Context(), img)
	d.hooks.files = nil
	d.disk.Heal()
	cache := d.disk.Open()
	equal := map[int64]bool{}
	d.hooks.target = func(w update.Target) update.Target {
		return &target{Target: w, write: func(p []byte, off int64) (int, error) {
			got := make([]byte, len(p))
			if _, err := cache.Pread(got, slotOffset("B")+off); err == nil && string(got) == string(p) {
				for at := off; at < off+int64(len(p)); at += 4096 {
					equal[at] = true
				}
				return len(p), nil
			}
			return w.WriteAt(p, off)
		}, readBack: believe(w, img, func(off int64) bool { return equal[off] })}
	}
	return d.finish(t, img)
}

// believe is a read-back that returns the image's bytes for some blocks.
func believe(w update.Target, img *image, trusted func(off int64) bool) func([]byte, int64) (int, error) {
	return func(p []byte, off int64) (int, error) {
		n, err := w.ReadBackAt(p, off)
		for at := off; at < off+int64(n) && at < int64(len(img.data)); at += 4096 {
			if trusted(at) {
				copy(p[at-off:n], img.data[at:min(at+4096, int64(len(img.data)))])
			}
		}
		return n, err
	}
}

// finish installs, promises success if there was any, and tries the states.
func (d *device) finish(t *testing.T, img *image) (int, error) {
	if _, err := d.install(t.Context(), img); err != nil {
		return 1, nil
	}
	mark := promise("B", img)
	if err := d.check(&crashdisk.State{Image: d.disk.Medium(), Marks: []string{mark}}); err != nil {
		return 1, err
	}
	d.disk.Mark(mark)
	return d.crashes(crashdisk.Plan{Limit: 20})
}

// noFolderSync: a record is replaced by a new file, whose folder is not synced. The disk represents the file system:
// one block of data for each file, and the folder's block, which says which file counts.
func noFolderSync(_ *testing.T, d *device, _ uint64) (int, error) {
	disk := crashdisk.New(make([]byte, 64<<10), d.o)
	f := disk.Open()
	block := func(b byte) []byte { p := make([]byte, 4096); p[0] = b; return p }
	_, err := f.Pwrite(block(7), 8192) // the new file's data
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		_, err = f.Pwrite(block(1), 0) // the folder now names it; its fsync is missing
	}
	if err != nil {
		return 0, err
	}
	disk.Mark("recorded")
	return disk.Crashes(crashdisk.Plan{}, func(s *crashdisk.State) error {
		if s.Has("recorded") && (s.Image[0] != 1 || s.Image[8192] != 7) {
			return errors.New("the record that was confirmed is gone")
		}
		return nil
	})
}
