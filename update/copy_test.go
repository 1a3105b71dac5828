package update_test

import (
	"bytes"
	"context"
	"errors"
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
				if err == nil || !strings.Contains(err.Error(), tt.msg) {
					t.Errorf("Copy = %+v, %v; want %q", res, err, tt.msg)
				}
				return
			}
			if err != nil || !bytes.Equal(d.medium, tt.want) {
				t.Fatalf("Copy = %+v, %v; medium as wanted: %v", res, err, bytes.Equal(d.medium, tt.want))
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
				_, err := update.Copy(t.Context(), copyJob(k, d, withMap))
				if _, ok := errors.AsType[*update.ReadBackError](err); !ok {
					t.Errorf("byte %d is wrong on the medium: Copy = %v", at, err)
				}
			}
		}
	})
}

// Whatever operation of a copy fails, or is the last one before it is cancelled, the copy is no success.
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
			_, err := update.Copy(t.Context(), copyJob(k, d, withMap))
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
			if res, err := update.Copy(ctx, copyJob(k, d, withMap)); !errors.Is(err, errInjected) {
				t.Fatalf("cancelled at operation %d: Copy = %+v, %v", n, res, err)
			}
			cancel(nil)
		}
	}
}
