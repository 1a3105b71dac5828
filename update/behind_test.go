package update_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"updater/bmap"
	"updater/update"
)

// followed is a slot whose own barriers let the read-back follow. It judges every read by the barriers that have completed.
type followed struct {
	target
	mu      sync.Mutex
	since   map[int64]int // pages written, and the barriers before that
	flushed bool
	early   int // bytes read before the last flush
	tooSoon []int64
	reads   chan struct{} // gets a value for every early read that is not too soon
	fail    error         // of every early read
	wrong   []int64       // bytes that read wrong
	slow    bool          // a read takes its time
	yields  bool          // every allowed read ends before the next write
	reading int           // reads under way
	most    [2]int        // of these at a time, before the last flush and after it
}

func (f *followed) note(off, n int64) {
	for at := off; at < off+n; at += 4096 {
		f.since[at/4096] = f.d.barriers
	}
}

func (f *followed) WriteAt(p []byte, off int64) (int, error) {
	if f.yields {
		time.Sleep(time.Millisecond)
	}
	f.mu.Lock() // barriers change in there
	defer f.mu.Unlock()
	n, err := f.target.WriteAt(p, off)
	f.note(off, int64(len(p)))
	return n, err
}

func (f *followed) Zero(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(off, n)
	return f.target.Zero(off, n)
}

func (f *followed) Flush() error {
	f.mu.Lock()
	f.flushed = true
	f.mu.Unlock()
	return f.target.Flush()
}

func (f *followed) ReadBackAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	if !f.flushed {
		f.early += len(p)
		soon := len(f.tooSoon)
		for at := off; at < off+int64(len(p)); at += 4096 {
			if n, written := f.since[at/4096]; !written || f.d.barriers < n+2 {
				f.tooSoon = append(f.tooSoon, at)
			}
		}
		if len(f.tooSoon) == soon {
			select {
			case f.reads <- struct{}{}:
			default:
			}
		}
	}
	err := f.fail
	f.reading++
	late := 0
	if f.flushed {
		late = 1
	}
	f.most[late] = max(f.most[late], f.reading)
	f.mu.Unlock()
	if f.slow {
		time.Sleep(20 * time.Millisecond)
	}
	n, read := f.target.ReadBackAt(p, off)
	for _, at := range f.wrong {
		if at >= off && at < off+int64(n) {
			p[at-off] ^= 1
		}
	}
	f.mu.Lock()
	f.reading--
	f.mu.Unlock()
	return n, cmp.Or(err, read)
}

// Close is not called while the medium is read.
func (f *followed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reading > 0 {
		f.tooSoon = append(f.tooSoon, -1)
	}
	return f.target.Close()
}

func (f *followed) OpenSlot(string, string) (update.Target, error) { return f, nil }
func (f *followed) SlotSize(string, string) (int64, error)         { return f.d.size, nil }

// paused is an image that ends after n early reads. There are three readers: with four reads one has compared its range.
type paused struct {
	stream
	reads <-chan struct{}
	n     int
	ctx   context.Context
}

func (p *paused) Read(b []byte) (int, error) {
	for ; p.n > 0 && p.Len() <= len(b); p.n-- {
		select {
		case <-p.reads:
		case <-p.ctx.Done():
			return 0, context.Cause(p.ctx)
		}
	}
	return io.ReadFull(p.stream, b)
}

// followedJob installs on a slot with a barrier after every second write.
func followedJob(t *testing.T, k *kit) (update.Job, *followed) {
	d := newDevice(max(1<<20, k.imageSize))
	d.every = 2
	f := &followed{target: target{d}, since: map[int64]int{}, reads: make(chan struct{}, 4)}
	job := k.job(d)
	job.Disk, job.Rewrite = f, true
	job.Image = &paused{stream{Reader: bytes.NewReader(k.image)}, f.reads, 4, t.Context()}
	return job, f
}

// Where a target counts its barriers, the image is read back while it is written, two barriers behind, and the rest after the last flush.
// Both ways make as much progress.
func TestReadBackOverlaps(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16384})
	var moves []int64
	for _, every := range []int{2, 3, 0} { // at the end of a range, too
		job, f := followedJob(t, k)
		job.Sizes = update.Sizes{Chunk: 4096} // a barrier within a range
		job.Progress = new(update.Progress)
		f.d.every = every
		if every == 0 {
			job.Image = stream{Reader: bytes.NewReader(k.image)}
		} else {
			f.yields = true
		}
		res, err := update.Install(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		if (f.early > 0) != (every > 0) || (res.OverlapBytes > 0) != (every > 0) || res.OverlapBytes > int64(f.early) || len(f.tooSoon) > 0 {
			t.Errorf("%d bytes were read early, the result has %d; too soon: %d", f.early, res.OverlapBytes, f.tooSoon)
		}
		if f.d.next() != "B" || !bytes.Equal(f.d.medium[:len(k.image)], k.image) {
			t.Error("the slot does not hold the image, or does not boot next")
		}
		moves = append(moves, job.Progress.Moves())
	}
	if moves[0] != moves[2] || moves[1] != moves[2] {
		t.Errorf("Moves grew by %d and %d with overlapped read-back, by %d without", moves[0], moves[1], moves[2])
	}
}

// Three ranges are read at a time while the image is written, and six afterwards.
func TestReadersAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
		job, f := followedJob(t, k)
		f.slow = true
		if _, err := update.Install(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if f.most != [2]int{3, 6} {
			t.Errorf("%d reads at a time before and after the last flush; want 3 and 6", f.most)
		}
	})
}

// Mismatches that the overlapped read-back finds are repaired once everything was written.
func TestOverlappedMismatch(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
	job, f := followedJob(t, k)
	f.d.flip = 70_000
	f.d.onOp = func(n int) {
		if f.d.journal[n-1] == "flush" {
			f.d.flip = -1 // the next flush, of the repair, is right
		}
	}
	job.Reopen = func(context.Context) (update.ImageCloser, error) {
		return stream{Reader: bytes.NewReader(k.image)}, nil
	}
	res, err := update.Install(t.Context(), job)
	if err != nil || res.RepairedBytes != 8192 || f.d.next() != "B" || !bytes.Equal(f.d.medium[:len(k.image)], k.image) {
		t.Errorf("Install = %+v, %v; want the range repaired", res, err)
	}
}

// A medium that cannot be read while it is written ends the install before the switch.
func TestOverlappedReadFails(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
	job, f := followedJob(t, k)
	f.fail = errInjected
	job.Image.(*paused).n = 1 // no reader goes on
	if _, err := update.Install(t.Context(), job); !errors.Is(err, errInjected) || !isA[*update.ReadBackError](err) || f.d.next() != "A" {
		t.Errorf("Install = %v; want a ReadBackError before the switch", err)
	}
}

// The writing ends soon after the read-back has failed.
func TestOverlappedFailureEndsWriting(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	k.sign(t, bytes.Repeat([]byte("data"), 2<<20), bmap.CreateOptions{MaxRange: 8192})
	job, f := followedJob(t, k)
	job.Sizes, job.Image = update.Sizes{Chunk: 4096}, stream{Reader: bytes.NewReader(k.image)}
	f.fail, f.yields = errInjected, true
	if _, err := update.Install(t.Context(), job); !errors.Is(err, errInjected) || f.d.out == k.imageSize || slices.Contains(f.d.journal, "flush") {
		t.Errorf("Install = %v with %d bytes written", err, f.d.out)
	}
}

// A target is closed only when no read of it is under way, whatever ended the install or the copy.
func TestOverlappedReadEndsBeforeClose(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, copies := range []bool{false, true} {
		job, f := followedJob(t, k)
		f.slow = true
		f.d.onOp = func(n int) {
			if f.d.journal[n-1] == "write 696320" {
				f.d.failAt = n
			}
		}
		if copies {
			_, err = update.Copy(t.Context(), update.CopyJob{Map: m, Image: job.Image, Target: f, Rewrite: true})
			f.Close()
		} else {
			_, err = update.Install(t.Context(), job)
		}
		if !errors.Is(err, errInjected) || len(f.tooSoon) > 0 || f.d.closed != 1 {
			t.Errorf("copies %v: %v; closed %d times, during a read: %v", copies, err, f.d.closed, f.tooSoon)
		}
	}
}

// A range that is written after the others is compared only after its own write; the others are compared while the image is written.
func TestOverlappedLateRange(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]int64{nil, {m.Range(2).Offset}, {m.Range(1).Offset, m.Range(2).Offset, m.Range(3).Offset}} {
		job, f := followedJob(t, k)
		sparse, img, _ := k.sparse(t, f.d, bytes.Repeat([]byte{0x5a}, 700_000))
		f.wrong, job.Seed, job.Rewrite, job.Reopen = wrong, sparse.Seed, false, k.reopen
		job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m, makes: func(int) bool { return true },
			wrong: func(i int) bool { return i%2 == 1 },
			next: func(i int) {
				for n := 0; i == m.Len()-1 && n < 5; n++ {
					<-f.reads
				}
			}}}
		res, err := update.Install(t.Context(), job)
		if len(wrong) == 0 {
			if err != nil || res.RepairedBytes != 0 || res.OverlapBytes == 0 || !bytes.Equal(f.d.medium[:len(k.image)], k.image) {
				t.Errorf("Install = %+v, %v; want success without a repair", res, err)
			}
			continue
		}
		e, ok := errors.AsType[*update.ReadBackError](err)
		if !ok || f.d.next() != "A" || !slices.EqualFunc(e.Ranges, wrong, func(s bmap.Span, at int64) bool { return s.Offset == at }) || e.Offset != wrong[0] {
			t.Errorf("Install = %v, next %s; want a ReadBackError of the ranges at %d", err, f.d.next(), wrong)
		}
	}
}
