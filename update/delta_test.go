package update_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"updater/bmap"
	"updater/update"
)

// sparseStream is an image in memory that refuses to be read where it was not planned.
type sparseStream struct {
	stream
	t       *testing.T
	planned []bmap.Span
	read    int64
	plan    func() error
}

func (s *sparseStream) Plan(_ *bmap.Map, want []bmap.Span) (update.Fetch, error) {
	s.planned = want
	if s.plan != nil {
		if err := s.plan(); err != nil {
			return update.Fetch{}, err
		}
	}
	return update.Fetch{Parts: true, Requests: len(want)}, nil
}

func (s *sparseStream) Read(p []byte) (int, error) {
	at := s.Size() - int64(s.Len())
	n, err := s.stream.Read(p)
	for end := at + int64(n); at < end; {
		inside := false
		for _, w := range s.planned {
			if at >= w.Offset && at < w.Offset+w.Length {
				inside, at = true, w.Offset+w.Length
				break
			}
		}
		if !inside && n > 0 {
			s.t.Errorf("byte %d was read, and not planned", at)
			break
		}
	}
	s.read += int64(n)
	return n, err
}

// seed is another slot in memory.
type seed struct {
	data   []byte
	reads  atomic.Int64
	onRead func(n int64) error
	closed int
}

func (s *seed) ReadAt(p []byte, off int64) (int, error) {
	n := s.reads.Add(1)
	if s.onRead != nil {
		if err := s.onRead(n); err != nil {
			return 0, err
		}
	}
	return bytes.NewReader(s.data).ReadAt(p, off)
}
func (s *seed) Size() int64  { return int64(len(s.data)) }
func (s *seed) Close() error { s.closed++; return nil }
func (s *seed) Map() string  { return "" }

// sparse makes a job whose image is fetched, with another slot to copy from.
func (k *kit) sparse(t *testing.T, d *device, other []byte) (update.Job, *sparseStream, *seed) {
	t.Helper()
	img := &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t}
	s := &seed{data: other}
	job := k.job(d)
	job.Image = img
	job.Seed = func(slot, _ string) (update.Seed, error) {
		if slot != "B" {
			t.Errorf("the other slot of %s was asked for", slot)
		}
		return s, nil
	}
	return job, img, s
}

func TestDelta(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	moved := make([]byte, len(k.image))
	copy(moved[81920:], k.image[65536:81920]) // a range where another is, and all else is other
	changed := bytes.Clone(k.image)
	changed[70_000] ^= 1
	changed[697_000] ^= 1
	short := bytes.Clone(k.image[:100_000])
	mapped := int64(0)
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	mapped = m.MappedBytes()
	for _, c := range []struct {
		name   string
		target []byte // what the target holds, nil: nothing of it
		other  []byte // nil: there is no other slot
		held   bool   // everything is in the target
		fetch  int64  // bytes of the image that are fetched; -1 some, but not all
	}{
		{"no other slot", nil, nil, false, mapped},
		{"another slot with other content", nil, bytes.Repeat([]byte{0x5a}, 700_000), false, mapped},
		{"the same image", nil, k.image, false, 0},
		{"two ranges differ", nil, changed, false, 16<<10 + 700_000 - 696_320},
		{"a smaller slot", nil, short, false, -1},
		{"another place", nil, moved, false, -1},
		{"all is there", k.image, k.image, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			if c.target != nil {
				copy(d.data, c.target)
				copy(d.medium, c.target)
			}
			job, img, s := k.sparse(t, d, c.other)
			if c.other == nil {
				job.Seed = nil
			}
			var told *update.Fetch
			job.Progress = &update.Progress{OnFetch: func(f update.Fetch) {
				if img.read > 0 {
					t.Error("the plan was told after the first byte")
				}
				told = &f
			}}
			res, err := update.Install(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(d.medium[:len(k.image)], k.image) || d.next() != "B" {
				t.Error("the slot does not hold the image, or does not boot next")
			}
			if c.fetch >= 0 && img.read != c.fetch || c.fetch < 0 && (img.read == 0 || img.read >= mapped) {
				t.Errorf("%d bytes were fetched, want %d of %d", img.read, c.fetch, mapped)
			}
			if told == nil || res.Fetch == nil || *told != *res.Fetch || told.Held+told.Copied+img.read != mapped {
				t.Errorf("told %+v, result %+v, fetched %d of %d", told, res.Fetch, img.read, mapped)
			}
			if (told.Held == mapped) != c.held {
				t.Errorf("%d bytes are said to be there", told.Held)
			}
			if c.other != nil && s.closed != 1 {
				t.Errorf("the other slot was closed %d times", s.closed)
			}
		})
	}
}

// What comes from the other slot is compared like everything else, and no failure there ends in a switch.
func TestDeltaFails(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	run := func(t *testing.T, ctx context.Context, change func(job *update.Job, img *sparseStream, s *seed)) error {
		t.Helper()
		d := newDevice(1 << 20)
		job, img, s := k.sparse(t, d, bytes.Clone(k.image))
		change(&job, img, s)
		_, err := update.Install(ctx, job)
		if err != nil && d.next() == "B" {
			t.Errorf("slot B boots next after %v", err)
		}
		return err
	}
	t.Run("it changes after the plan", func(t *testing.T) {
		err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
			img.plan = func() error { s.data[70_000] ^= 1; return nil }
		})
		if _, ok := errors.AsType[*update.ImageError](err); !ok {
			t.Errorf("error is %v; want an ImageError", err)
		}
	})
	t.Run("it cannot be read after the plan", func(t *testing.T) {
		err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
			img.plan = func() error { s.onRead = func(int64) error { return errInjected }; return nil }
		})
		if !errors.Is(err, errInjected) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("it cannot be read", func(t *testing.T) {
		if err := run(t, t.Context(), func(_ *update.Job, _ *sparseStream, s *seed) { s.onRead = func(int64) error { return errInjected } }); err != nil {
			t.Errorf("an install without it: %v", err)
		}
	})
	t.Run("it cannot be opened", func(t *testing.T) {
		if err := run(t, t.Context(), func(job *update.Job, _ *sparseStream, _ *seed) {
			job.Seed = func(string, string) (update.Seed, error) { return nil, errInjected }
		}); err != nil {
			t.Errorf("an install without it: %v", err)
		}
	})
	t.Run("the plan fails", func(t *testing.T) {
		err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, _ *seed) { img.plan = func() error { return io.ErrNoProgress } })
		if _, ok := errors.AsType[*update.SourceError](err); !ok || !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("error is %v; want a SourceError", err)
		}
	})
	stop := errors.New("stopped")
	for n := int64(1); n <= 20; n += 4 {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := run(t, ctx, func(_ *update.Job, _ *sparseStream, s *seed) {
			s.onRead = func(i int64) error {
				if i == n {
					cancel(stop)
				}
				return nil
			}
		})
		if !errors.Is(err, stop) {
			t.Errorf("cancelled at read %d of the other slot: %v", n, err)
		}
		cancel(nil)
	}
}
