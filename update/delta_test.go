package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
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
	asked   bool // Plan was called
	read    int64
	plan    func() error
	skips   int    // the number of a Skip that fails, of those that skip anything, from 1; 0 none
	whole   bool   // the file can be fetched only whole
	onClose func() // may be nil
	closed  int
}

func (s *sparseStream) Close() error {
	if s.closed++; s.onClose != nil {
		s.onClose()
	}
	return nil
}

func (s *sparseStream) Skip(n int64) error {
	if n > 0 {
		if s.skips--; s.skips == 0 {
			return errInjected
		}
	}
	return s.stream.Skip(n)
}

func (s *sparseStream) Plan(_ *bmap.Map, want []bmap.Span) (update.Fetch, error) {
	s.planned, s.asked = want, true
	if s.plan != nil {
		if err := s.plan(); err != nil {
			return update.Fetch{}, err
		}
	}
	if s.whole {
		return update.Fetch{Whole: 200, Reason: "no parts"}, nil
	}
	f := update.Fetch{Parts: true, Requests: len(want), Whole: 1 << 20}
	for _, w := range want {
		f.Bytes += w.Length
	}
	return f, nil
}

func (s *sparseStream) Read(p []byte) (int, error) {
	at := s.Size() - int64(s.Len())
	n, err := s.stream.Read(p)
	for end := at + int64(n); at < end && !s.whole; {
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
	got, err := bytes.NewReader(s.data).ReadAt(p, off)
	if off+int64(got) == int64(len(s.data)) {
		err = io.EOF // as a reader may
	}
	return got, err
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
	copy(moved[81920:], k.image[65536:81920]) // a range in the place of another; everything else differs
	changed := bytes.Clone(k.image)
	changed[70_000] ^= 1
	changed[697_000] ^= 1
	short := bytes.Clone(k.image[:100_000])
	both := bytes.Clone(k.image) // a range, and a copy of it in the place of another
	copy(both[81920:98304], k.image[65536:81920])
	mapped := int64(0)
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	mapped = m.MappedBytes()
	for _, c := range []struct {
		name   string
		target []byte // content of the target; nil: nothing of the image
		other  []byte // nil: there is no other slot
		held   bool   // everything is in the target
		fetch  int64  // bytes of the image that are fetched; -1 some, but not all
	}{
		{"no other slot", nil, nil, false, mapped},
		{"another slot with other content", nil, bytes.Repeat([]byte{0x5a}, 700_000), false, mapped},
		{"the same image", nil, k.image, false, 0},
		{"two ranges differ", nil, changed, false, 16<<10 + 700_000 - 696_320},
		{"a smaller slot", nil, short, false, -1},
		{"another place", nil, moved, false, mapped - 16<<10},
		{"its place and another one", nil, both, false, 16 << 10},
		{"all is there", k.image, k.image, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			if c.target != nil {
				copy(d.data, c.target)
				copy(d.medium, c.target)
			}
			job, img, s := k.sparse(t, d, c.other)
			job.Held = 16 << 10 // a range of this length is not read twice
			job.Reopen = func(context.Context) (update.ImageCloser, error) { return nil, errInjected }
			if c.other == nil {
				job.Seed = nil
			}
			var told *update.Fetch
			job.Progress = &update.Progress{OnFetch: func(f update.Fetch) {
				if img.read > 0 {
					t.Error("the plan was told after the first byte")
				}
				if phase, done, total := job.Progress.Sample(); phase != update.PhasePlan || total != mapped || c.other != nil && done != mapped {
					t.Errorf("the plan was told in phase %s, %d of %d", phase, done, total)
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
			if res.Fetch.Saved != 1<<20-img.read || res.SkippedBytes != told.Held || res.Fetch.Bytes != img.read {
				t.Errorf("the result is %+v with %+v", res, res.Fetch)
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

// A range of the other slot is copied to every place where the image has it, unless it is longer than the ranges that are compared before
// they are written.
func TestCopiedTwice(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	image := bytes.Clone(k.image)
	copy(image[98304:114688], image[65536:81920])
	k.sign(t, image, bmap.CreateOptions{MaxRange: 16 << 10})
	other := make([]byte, len(image))
	copy(other[65536:81920], image[65536:])
	d := newDevice(1 << 20)
	job, img, _ := k.sparse(t, d, other)
	res, err := update.Install(t.Context(), job)
	if err != nil || res.Fetch.Copied != 2*16384 || img.read != res.MappedBytes-2*16384 || !bytes.Equal(d.medium[:len(image)], image) {
		t.Errorf("Install = %+v, %v with %d bytes fetched", res, err, img.read)
	}
	k.sign(t, image, bmap.CreateOptions{MaxRange: -1})
	job, _, _ = k.sparse(t, newDevice(1<<20), image)
	job.Held = 16 << 10
	if res, err := update.Install(t.Context(), job); err != nil || res.Fetch.Copied != 8192+4096+3680 {
		t.Errorf("Install with a long range = %+v, %v", res, err)
	}
}

// Ranges from the other slot are compared like all others, and no failure there ends in a switch.
func TestDeltaFails(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	run := func(t *testing.T, ctx context.Context, change func(job *update.Job, img *sparseStream, s *seed)) error {
		t.Helper()
		d := newDevice(1 << 20)
		job, img, s := k.sparse(t, d, bytes.Clone(k.image))
		change(&job, img, s)
		_, err := update.Install(ctx, job)
		if s.closed != 1 {
			t.Errorf("the other slot was closed %d times", s.closed)
		}
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
		for _, cause := range []error{errInjected, io.EOF} {
			err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
				img.plan = func() error { s.onRead = func(int64) error { return cause }; return nil }
			})
			if errors.Is(err, io.EOF) || !errors.Is(err, errInjected) && !errors.Is(err, io.ErrUnexpectedEOF) || !isA[*update.SourceError](err) {
				t.Errorf("error is %v; want a SourceError", err)
			}
		}
	})
	t.Run("it cannot be read", func(t *testing.T) {
		if err := run(t, t.Context(), func(_ *update.Job, _ *sparseStream, s *seed) { s.onRead = func(int64) error { return errInjected } }); err != nil {
			t.Errorf("an install without it: %v", err)
		}
	})
	t.Run("it cannot be opened", func(t *testing.T) {
		job, img, _ := k.sparse(t, newDevice(1<<20), nil)
		job.Seed = func(string, string) (update.Seed, error) { return nil, errInjected }
		res, err := update.Install(t.Context(), job)
		if err != nil || img.read != res.MappedBytes || !strings.Contains(strings.Join(res.Warnings, " "), "injected") {
			t.Errorf("an install without it: %+v, %v", res, err)
		}
	})
	t.Run("the image ends early", func(t *testing.T) {
		for _, c := range []struct{ size, wanted, also int }{
			{81_920, 70_000, 697_000}, {81_920, 70_000, 70_000}, {75_000, 5, 70_000}, // before a range that is wanted, after all of them, within one
		} {
			err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
				img.Reader = bytes.NewReader(k.image[:c.size])
				s.data[c.wanted], s.data[c.also] = ^k.image[c.wanted], ^k.image[c.also]
			})
			if !isA[*update.SourceError](err) {
				t.Errorf("error is %v; want a SourceError", err)
			}
		}
	})
	t.Run("the image cannot be skipped", func(t *testing.T) {
		for n := 1; n <= 2; n++ { // to the first range, and to the second one
			err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
				img.skips, s.data[70_000], s.data[697_000] = n, ^k.image[70_000], ^k.image[697_000]
			})
			if !isA[*update.SourceError](err) || !errors.Is(err, errInjected) {
				t.Errorf("the error of skip %d is %v; want a SourceError", n, err)
			}
		}
	})
	t.Run("the image goes on", func(t *testing.T) {
		err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, s *seed) {
			img.Reader = bytes.NewReader(append(bytes.Clone(k.image), 0))
		})
		if !isA[*update.SourceError](err) {
			t.Errorf("error is %v; want a SourceError", err)
		}
	})
	t.Run("the plan fails", func(t *testing.T) {
		err := run(t, t.Context(), func(_ *update.Job, img *sparseStream, _ *seed) { img.plan = func() error { return io.ErrNoProgress } })
		if _, ok := errors.AsType[*update.SourceError](err); !ok || !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("error is %v; want a SourceError", err)
		}
	})
	stop := errors.New("stopped")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one reader searches: all but its last read come before the plan
	for n := int64(1); n <= 20; n += 4 {
		var image *sparseStream
		ctx, cancel := context.WithCancelCause(t.Context())
		err := run(t, ctx, func(_ *update.Job, img *sparseStream, s *seed) {
			image = img
			s.onRead = func(i int64) error {
				if i == n {
					cancel(stop)
				}
				return nil
			}
		})
		if !errors.Is(err, stop) || n < 10 && image.asked {
			t.Errorf("cancelled at read %d of the other slot: %v; the image was planned: %v", n, err, image.asked)
		}
		cancel(nil)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	d := newDevice(1 << 20)
	job, img, s := k.sparse(t, d, k.image)
	d.onOp = func(int) { cancel(stop) }
	if _, err := update.Install(ctx, job); !errors.Is(err, stop) || s.closed > 0 || img.asked {
		t.Errorf("cancelled before the slot is compared: Install = %v; the other slot was opened %d times", err, s.closed)
	}
}

// A rewrite copies nothing, since the other slot may be at fault.
func TestRewriteFetchesAll(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	d := newDevice(1 << 20)
	job, _, s := k.sparse(t, d, k.image)
	job.Rewrite = true
	job.Image = &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t, whole: true}
	if res, err := update.Install(t.Context(), job); err != nil || s.reads.Load() > 0 || res.Fetch != nil || res.WrittenBytes != res.MappedBytes {
		t.Errorf("Install = %+v, %v after %d reads of the other slot", res, err, s.reads.Load())
	}
}

// vast is another slot that holds nothing of an image of zeros.
type vast struct{ read atomic.Int64 }

func (v *vast) ReadAt(p []byte, _ int64) (int, error) {
	v.read.Add(int64(copy(p, bytes.Repeat([]byte{1}, len(p)))))
	return len(p), nil
}
func (v *vast) Size() int64  { return 1 << 40 }
func (v *vast) Close() error { return nil }
func (v *vast) Map() string  { return "" }

// endless is an image of zeros.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) { clear(p); e.read += int64(len(p)); return len(p), nil }
func (e *endless) Skip(int64) error           { return nil }
func (e *endless) End() error                 { return nil }
func (e *endless) Close() error               { return nil }
func (e *endless) Plan(*bmap.Map, []bmap.Span) (update.Fetch, error) {
	return update.Fetch{Parts: true}, nil
}

// Time and memory are bounded before the slot is marked bad: the search of another slot that holds nothing, and the first range. Here
// the slot cannot be marked bad.
func TestBoundsBeforeInvalidate(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	long := func(n, length int64) {
		var ranges []bmap.Range
		for i := range n {
			ranges = append(ranges, bmap.Range{Offset: i * length, Length: length, Checksum: strings.Repeat("ab", 32)})
		}
		sum := sha256.Sum256(make([]byte, 4096)) // the first one is right
		ranges[0].Length, ranges[0].Checksum = 4096, hex.EncodeToString(sum[:])
		if n == 1 {
			ranges[0] = bmap.Range{Length: length, Checksum: strings.Repeat("ab", 32)}
		}
		m, err := bmap.FromRanges(n*length, "sha256", ranges)
		if err != nil {
			t.Fatal(err)
		}
		k.doc = m.Encode()
		k.sig = k.signed(k.doc)
	}
	run := func(size int64, change func(*update.Job)) {
		d := newDevice(1 << 20)
		d.size = size
		d.onOp = func(n int) {
			if d.journal[n-1] == "invalidate B" {
				d.failAt = n
			}
		}
		job := k.job(d)
		job.Disk = hollow{d}
		change(&job)
		if _, err := update.Install(t.Context(), job); !errors.Is(err, errInjected) {
			t.Errorf("Install = %v; want an error of the invalidation", err)
		}
	}
	const mib = 1 << 20
	long(40, 4*mib)
	v := new(vast)
	run(160*mib, func(job *update.Job) {
		job.Image, job.Seed = new(endless), func(string, string) (update.Seed, error) { return v, nil }
	})
	if n, most := v.read.Load(), int64(68*mib+4*mib*runtime.GOMAXPROCS(0)); n < 64*mib || n > most {
		t.Errorf("%d bytes of the other slot were read; want 64 MiB", n)
	}
	// Ranges that are found pay for those that are not. With one reader the order is known: up to 64 MiB in vain is within the bound, more is not.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var ranges []bmap.Range
	size := int64(0)
	add := func(n int, length int64, fill byte) {
		sum := sha256.Sum256(bytes.Repeat([]byte{fill}, int(length)))
		for range n {
			ranges = append(ranges, bmap.Range{Offset: size, Length: length, Checksum: hex.EncodeToString(sum[:])})
			size += length
		}
	}
	add(1, 8192, 0)
	add(2, 4096, 1)
	add(4, 2*mib, 1)
	add(18, 4*mib, 2)
	add(1, mib, 1)
	add(1, 4*mib, 2)
	add(1, mib/2, 1) // beyond the bound
	m, err := bmap.FromRanges(size, "sha256", ranges)
	if err != nil {
		t.Fatal(err)
	}
	k.doc = m.Encode()
	k.sig = k.signed(k.doc)
	run(size, func(job *update.Job) {
		job.Image, job.Seed = new(endless), func(string, string) (update.Seed, error) { return v, nil }
		job.Progress = &update.Progress{OnFetch: func(f update.Fetch) {
			if f.Copied != 2*4096+9*mib {
				t.Errorf("%d bytes are copied of another slot; want those within the bound", f.Copied)
			}
		}}
	})
	long(1, 64*mib+4096)
	image, again := new(endless), 0
	run(65*mib, func(job *update.Job) {
		job.Image = image
		job.Reopen = func(context.Context) (update.ImageCloser, error) { again++; return new(endless), nil }
	})
	if again != 0 || image.read != 4*mib {
		t.Errorf("%d bytes of a range of more than 64 MiB were read, it was opened %d times more", image.read, again)
	}
}

// hollow is a disk of any size that holds nothing of an image.
type hollow struct{ *device }

func (h hollow) OpenSlot(slot, role string) (update.Target, error) {
	return &blank{}, h.op("open %s %s", slot, role)
}
