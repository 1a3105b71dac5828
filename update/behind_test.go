package update_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

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
	reads   chan struct{} // gets a value for every early read
	fail    error         // of every read
}

func (f *followed) note(off, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := off; at < off+n; at += 4096 {
		f.since[at/4096] = f.d.barriers
	}
}

func (f *followed) WriteAt(p []byte, off int64) (int, error) {
	f.note(off, int64(len(p)))
	f.mu.Lock() // barriers change in there
	defer f.mu.Unlock()
	return f.target.WriteAt(p, off)
}

func (f *followed) Zero(off, n int64) error { f.note(off, n); return f.target.Zero(off, n) }

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
		for at := off; at < off+int64(len(p)); at += 4096 {
			if n, written := f.since[at/4096]; !written || f.d.barriers < n+2 {
				f.tooSoon = append(f.tooSoon, at)
			}
		}
		select {
		case f.reads <- struct{}{}:
		default:
		}
	}
	err := f.fail
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.target.ReadBackAt(p, off)
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
	d := newDevice(1 << 20)
	d.every = 2
	f := &followed{target: target{d}, since: map[int64]int{}, reads: make(chan struct{}, 4)}
	job := k.job(d)
	job.Disk, job.Rewrite = f, true
	job.Image = &paused{stream{Reader: bytes.NewReader(k.image)}, f.reads, 4, t.Context()}
	return job, f
}

// Where a target counts its barriers, the image is read back while it is written, two barriers behind, and the rest after the last flush.
func TestReadBackOverlaps(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 8192})
	job, f := followedJob(t, k)
	res, err := update.Install(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if f.early == 0 || res.OverlapBytes == 0 || len(f.tooSoon) > 0 {
		t.Errorf("%d bytes were read early, the result has %d; too soon: %d", f.early, res.OverlapBytes, f.tooSoon)
	}
	if f.d.next() != "B" || !bytes.Equal(f.d.medium[:len(k.image)], k.image) {
		t.Error("the slot does not hold the image, or does not boot next")
	}
}

// What the overlapped read-back finds different is repaired, once everything was written.
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
