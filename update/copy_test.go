package update_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/update"
)

func copyJob(k *kit, d *device, m *bmap.Map) update.CopyJob {
	return update.CopyJob{Map: m, Unmapped: update.UnmappedZero, Image: stream{Reader: bytes.NewReader(k.image)}, Target: &target{d}}
}

func TestCopy(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := bmap.FromRanges(k.imageSize, "sha256", []bmap.Range{{Offset: 0, Length: k.imageSize}})
	if err != nil {
		t.Fatal(err)
	}
	zeroed := bytes.Repeat([]byte{0xa5}, 1<<20)
	kept := bytes.Clone(zeroed)
	copy(zeroed, k.image)
	for _, r := range m.Ranges() {
		copy(kept[r.Offset:r.Offset+r.Length], k.image[r.Offset:])
	}
	discarded := bytes.Clone(kept)
	for gap := range m.Gaps() {
		copy(discarded[gap.Offset:gap.Offset+gap.Length], bytes.Repeat([]byte{0xdc}, int(gap.Length)))
	}
	tests := []struct {
		name   string
		change func(*update.CopyJob)
		want   []byte // nil when it fails
		msg    string
		reads  bool
	}{
		{"zero", func(*update.CopyJob) {}, zeroed, "", true},
		{"keep", func(j *update.CopyJob) { j.Unmapped = update.UnmappedKeep }, kept, "", true},
		{"discard", func(j *update.CopyJob) { j.Unmapped = update.UnmappedDiscard }, discarded, "", true},
		{"everything", func(j *update.CopyJob) { j.Map = nil }, zeroed, "", true},
		{"everything, in small pieces", func(j *update.CopyJob) { j.Map, j.Sizes = nil, update.Sizes{Chunk: 8192, Held: 65536} }, zeroed, "", true},
		{"everything, as long as a range may be", func(j *update.CopyJob) { j.Map, j.Sizes = nil, update.Sizes{Held: k.imageSize} }, zeroed, "", true},
		{"everything that cannot be read", func(j *update.CopyJob) {
			j.Map, j.Image = nil, breaks{stream{Reader: bytes.NewReader(k.image[:600_000])}}
		}, nil, "reading the image at 600000: injected", false},
		{"no read-back", func(j *update.CopyJob) { j.SkipReadBack, j.Rewrite = true, true }, zeroed, "", false},
		{"map without checksums", func(j *update.CopyJob) { j.Map = bare }, nil, "has no checksum", false},
		{"another image", func(j *update.CopyJob) {
			k2 := bytes.Clone(k.image)
			k2[5]++
			j.Image = stream{Reader: bytes.NewReader(k2)}
		}, nil, "sha256 is", false},
		{"short image", func(j *update.CopyJob) { j.Image = stream{Reader: bytes.NewReader(k.image[:600_000])} }, nil, "reading the image", false},
		{"long image", func(j *update.CopyJob) { j.Image = stream{Reader: bytes.NewReader(append(bytes.Clone(k.image), 0))} }, nil, "bytes are left",
			false},
		{"bad end", func(j *update.CopyJob) { j.Image = stream{Reader: bytes.NewReader(k.image), end: errInjected} }, nil, "injected", false},
		{"everything with a bad end", func(j *update.CopyJob) {
			j.Map, j.Image = nil, stream{Reader: bytes.NewReader(k.image), end: errInjected}
		}, nil, "injected", false},
		{"everything of nothing", func(j *update.CopyJob) { j.Map, j.Image = nil, stream{Reader: bytes.NewReader(nil)} }, nil, "empty", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			job := copyJob(k, d, m)
			tt.change(&job)
			res, err := update.Copy(t.Context(), job)
			if tt.want == nil {
				if err == nil || !strings.Contains(err.Error(), tt.msg) || tt.msg == "empty" && len(d.journal) > 0 {
					t.Errorf("Copy = %+v, %v after %q; want %q", res, err, d.journal, tt.msg)
				}
				return
			}
			if err != nil || !bytes.Equal(d.medium, tt.want) {
				t.Fatalf("Copy = %+v, %v; medium as wanted: %v", res, err, bytes.Equal(d.medium, tt.want))
			}
			if res.WrittenBytes != res.MappedBytes || res.SkippedBytes != 0 || res.Engine != "memory" || (job.Map != nil) != (res.MappedBytes < k.imageSize) {
				t.Errorf("the result is %+v", res)
			}
			if job.Map == nil && job.Chunk != 0 != slices.Contains(d.journal, "zero 8192") {
				t.Errorf("chunks of zeros: %q", d.journal)
			}
			if _, timed := res.Seconds[update.PhaseWrite]; !timed {
				t.Errorf("the phases took %v", res.Seconds)
			}
			if reads := strings.Contains(strings.Join(d.journal, ","), "read back"); reads != tt.reads || res.ReadBack != tt.reads ||
				res.ImageBytes != k.imageSize {
				t.Errorf("read back: %v; result %+v", reads, res)
			}
		})
	}
	t.Run("lying medium", func(t *testing.T) {
		for _, at := range []int64{5, 100_000, 350_000, 699_999} {
			for _, withMap := range []*bmap.Map{m, nil} {
				d := newDevice(1 << 20)
				d.flip = at
				job := copyJob(k, d, withMap)
				if withMap == nil { // the written bytes are all that is known of the image
					job.Sizes = update.Sizes{Chunk: 8192, Held: 65536}
					job.Reopen = func(context.Context) (update.ImageCloser, error) { return nil, errors.New("it is opened again") }
				}
				_, err := update.Copy(t.Context(), job)
				e, ok := errors.AsType[*update.ReadBackError](err)
				if !ok || withMap == nil && (len(e.Ranges) != 1 || e.Offset != at/65536*65536 || e.Ranges[0].Length > 65536) {
					t.Errorf("byte %d is wrong on the medium: Copy = %v", at, err)
				}
			}
		}
	})
}

// breaks is an image that cannot be read at its end.
type breaks struct{ stream }

func (b breaks) Read(p []byte) (int, error) {
	n, err := b.stream.Read(p)
	if err == io.EOF {
		err = errInjected
	}
	return n, err
}

// A copy resumes, rewrites and repairs as an install does. Without a read-back nothing is read, and its progress counts the written bytes.
func TestCopyAgain(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(1 << 20)
	for _, rewrite := range []bool{false, false, true} {
		job := copyJob(k, d, m)
		job.Rewrite, job.Reopen, d.flip = rewrite, k.reopen, 70_000
		d.onOp = func(n int) {
			if d.journal[n-1] == "flush" {
				d.flip = -1
			}
		}
		held := bytes.Equal(d.medium[:8192], k.image[:8192])
		res, err := update.Copy(t.Context(), job)
		if err != nil || res.RepairedBytes != 65536 || (res.SkippedBytes > 0) != (held && !rewrite) || res.SkippedBytes+res.WrittenBytes != res.MappedBytes {
			t.Errorf("Copy = %+v, %v", res, err)
		}
	}
	f := &followed{target: target{newDevice(1 << 20)}, since: map[int64]int{}, reads: make(chan struct{}, 4)}
	f.d.every = 1
	overlapped := copyJob(k, f.d, m)
	overlapped.Target, overlapped.Rewrite, overlapped.Image = f, true, &paused{stream{Reader: bytes.NewReader(k.image)}, f.reads, 4, t.Context()}
	if res, err := update.Copy(t.Context(), overlapped); err != nil || res.OverlapBytes == 0 {
		t.Errorf("Copy = %+v, %v; want an overlapped read-back", res, err)
	}
	f = &followed{target: target{newDevice(1 << 20)}, since: map[int64]int{}}
	f.d.every = 1
	p := new(update.Progress)
	f.d.onOp = func(n int) {
		if _, done, _ := p.Sample(); f.d.journal[n-1] == "write 696320" && done != m.MappedBytes()-(700_000-696_320) {
			t.Errorf("%d bytes were done before the last write", done)
		}
	}
	job := copyJob(k, f.d, m)
	job.Target, job.SkipReadBack, job.Rewrite, job.Progress = f, true, true, p
	if res, err := update.Copy(t.Context(), job); err != nil || f.early > 0 || res.OverlapBytes != 0 {
		t.Errorf("Copy = %+v, %v after %d bytes were read", res, err, f.early)
	}
	d = newDevice(1 << 20)
	p = new(update.Progress)
	n, moves := int64(0), int64(0)
	d.onOp = func(int) {
		phase, done, _ := p.Sample()
		now := p.Moves()
		if n++; phase == update.PhaseWrite && (done != 8192*(n-1) || now <= moves) {
			t.Errorf("%d bytes are done before chunk %d; Moves %d after %d", done, n, now, moves)
		}
		moves = now
	}
	job = copyJob(k, d, nil)
	job.Image = consuming{stream{Reader: bytes.NewReader(k.image)}, func() int64 { return 1 << 40 }}
	job.Progress, job.Sizes = p, update.Sizes{Chunk: 8192}
	if _, err := update.Copy(t.Context(), job); err != nil || p.Moves() < 1<<40 {
		t.Errorf("Copy = %v; Moves %d does not count the source", err, p.Moves())
	}
}

// A copy is no success if any operation of it fails, or is the last one before it is cancelled.
func TestCopyEveryFailure(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, withMap := range []*bmap.Map{m, nil} {
		for n := 1; ; n++ {
			d := newDevice(1 << 20)
			d.failAt = n
			job := copyJob(k, d, withMap)
			job.Sizes = update.Sizes{Chunk: 16384} // more of them than buffers
			_, err := update.Copy(t.Context(), job)
			if len(d.journal) < n {
				if err != nil || n < 4 {
					t.Fatalf("%d operations, none failed, Copy = %v", n-1, err)
				}
				break
			}
			if d.compares(n) {
				if err != nil || !bytes.Equal(d.medium[:len(k.image)], k.image) {
					t.Fatalf("operation %d failed to read what the target held; Copy = %v; want the image on the target", n, err)
				}
			} else if !errors.Is(err, errInjected) {
				t.Fatalf("operation %d (%s) failed; Copy = %v", n, d.journal[n-1], err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			d = newDevice(1 << 20)
			d.onOp = func(i int) {
				if i == n {
					cancel(errInjected)
				}
			}
			job = copyJob(k, d, withMap)
			job.Sizes = update.Sizes{Chunk: 16384}
			if res, err := update.Copy(ctx, job); !errors.Is(err, errInjected) {
				t.Fatalf("cancelled at operation %d: Copy = %+v, %v", n, res, err)
			}
			cancel(nil)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		d := newDevice(1 << 20)
		job := copyJob(k, d, withMap)
		job.Progress = &update.Progress{OnPhase: func(p update.Phase, _ int64, _ update.Share) {
			if p == update.PhaseFlush {
				cancel(errInjected)
			}
		}}
		if _, err := update.Copy(ctx, job); !errors.Is(err, errInjected) || slices.Contains(d.journal, "flush") {
			t.Errorf("cancelled before the flush: Copy = %v after %q", err, d.journal)
		}
	}
}
