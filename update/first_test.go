package update_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/update"
)

// A source whose first missing range is wrong, or missing, costs nothing: the old slot stays the fallback.
func TestFirstRangeBeforeInvalidate(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	good := bytes.Clone(k.image)
	for _, tc := range []struct {
		name string
		held int   // ranges that the slot has from an install that was cut
		bad  int64 // byte that is wrong; -1 cuts the image before the first missing range
		want string
	}{
		{"nothing held", 0, m.Range(0).Offset, "update.ImageError"},
		{"cut", 0, -1, "update.SourceError"},
		{"cut before the only one that is missing", m.Len() - 1, -1, "update.SourceError"},
		{"one held", 1, m.Range(1).Offset + 7, "update.ImageError"},
		{"one held, that one bad", 1, 3, ""},
		{"two held", 2, m.Range(2).Offset, "update.ImageError"},
	} {
		for _, sparse := range []bool{false, true} {
			d := newDevice(1 << 20)
			for i := range tc.held {
				r := m.Range(i)
				copy(d.data[r.Offset:], good[r.Offset:r.Offset+r.Length])
				copy(d.medium[r.Offset:], good[r.Offset:r.Offset+r.Length])
			}
			copy(k.image, good)
			job := k.job(d)
			switch {
			case tc.bad < 0:
				job.Image = stream{Reader: bytes.NewReader(k.image[:8000])}
			default:
				k.image[tc.bad] ^= 1
			}
			if sparse && tc.bad >= 0 {
				job, _, _ = k.sparse(t, d, nil)
			}
			job.State = &memory{d: d}
			_, err := update.Install(t.Context(), job)
			touched := strings.Contains(strings.Join(d.journal, " "), "invalidate") || slices.Contains(d.journal, "record writing")
			switch {
			case tc.want == "" && (err != nil || d.next() != "B"):
				t.Errorf("%s: Install = %v, next %s; want success", tc.name, err, d.next())
			case tc.want == "":
			case touched || !d.slots[1].Bootable:
				t.Errorf("%s: the slot was invalidated: %v", tc.name, d.journal)
			case tc.want == "update.ImageError" && !isA[*update.ImageError](err), tc.want == "update.SourceError" && !isA[*update.SourceError](err):
				t.Errorf("%s: Install = %T %v; want %s", tc.name, err, err, tc.want)
			}
		}
	}
	copy(k.image, good)
}

// A range of another program's map that is too long to be held is compared in a second stream, before the slot is marked bad.
func TestLongFirstRange(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	good := bytes.Repeat([]byte("long"), 9<<20/4)
	k.sign(t, good, bmap.CreateOptions{MaxRange: -1})
	for _, tc := range []struct {
		name   string
		size   int64 // that the source has
		bad    int64 // byte that is wrong, -1 none
		reopen bool
		want   string // part of the error
		spared bool   // the slot stays bootable
	}{
		{"right", 9 << 20, -1, true, "", false},
		{"wrong at its end", 9 << 20, 9<<20 - 1, true, "bmap says", true},
		{"cut behind what is held", 8 << 20, -1, true, "reading the image at 8388608: it ends there", true},
		{"wrong, and no second stream", 9 << 20, 9<<20 - 1, false, "bmap says", false},
		{"cut at its beginning, and no second stream", 3 << 20, -1, false, "ends there", true},
	} {
		for variant := range 4 {
			sparse, rewrite := variant&1 != 0, variant&2 != 0
			d := newDevice(9 << 20)
			k.image = bytes.Clone(good[:tc.size])
			if tc.bad >= 0 {
				k.image[tc.bad] ^= 1
			}
			job, opened, open := k.job(d), 0, 0
			if sparse && !rewrite {
				job, _, _ = k.sparse(t, d, nil)
			}
			if tc.reopen {
				job.Reopen = func(ctx context.Context) (update.ImageCloser, error) {
					opened++
					open++
					if sparse {
						return &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t, onClose: func() { open-- }}, nil
					}
					image, err := k.reopen(ctx)
					return counted{image, &open}, err
				}
			}
			job.Rewrite = rewrite
			_, err := update.Install(t.Context(), job)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: Install = %v; want %q", tc.name, err, tc.want)
			}
			if spared := !strings.Contains(strings.Join(d.journal, " "), "invalidate"); spared != tc.spared || opened > 1 || open > 0 {
				t.Errorf("%s: the slot was spared: %v, the image opened again %d times, %d stay open", tc.name, spared, opened, open)
			}
		}
	}
}

// counted is an image that counts while it is open.
type counted struct {
	update.ImageCloser
	open *int
}

func (c counted) Close() error {
	*c.open--
	return c.ImageCloser.Close()
}

// The images of a release are prepared up to the first one that lacks a range.
func TestFirstRangeOfRelease(t *testing.T) {
	for _, held := range []bool{false, true} { // boot is in the slot already, so that the first range is that of rootfs
		k := newReleaseKit(t)
		s, role := newSet(), "boot"
		if held {
			role = "rootfs"
			clear(s.parts["boot"].medium)
			copy(s.parts["boot"].medium, k.images["boot"])
			copy(s.parts["boot"].data, s.parts["boot"].medium)
		}
		k.images[role] = bytes.Clone(k.images[role])
		k.images[role][0] ^= 2
		k.onRead = func(read string) {
			if read != role {
				t.Errorf("the image of %s is read first; want %s", read, role)
			}
		}
		_, err := update.Install(t.Context(), k.job(t, s))
		if journal := strings.Join(s.journal, " "); !isA[*update.ImageError](err) || strings.Contains(journal, "invalidate") || k.leaks(s.device) {
			t.Errorf("Install = %v after %s; want an ImageError before the slot is invalidated", err, journal)
		}
		if !held && strings.Contains(strings.Join(s.journal, " "), "read back rootfs") {
			t.Errorf("rootfs was prepared: %q", s.journal)
		}
	}
}

// judging is a disk that refuses images with these first bytes.
type judging struct {
	*device
	head []byte
}

func (j judging) OpenSlot(slot, role string) (update.Target, error) {
	t, err := j.device.OpenSlot(slot, role)
	return judge{t, j.head}, err
}

type judge struct {
	update.Target
	head []byte
}

func (j judge) CheckImage(head []byte, size int64) error {
	if size == 700_000 && bytes.HasPrefix(head, j.head) {
		return errors.New("made for sectors of 512 bytes, the disk has 4096")
	}
	return nil
}

// An image that cannot serve on the disk is refused by its beginning.
func TestImageIsJudged(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	for variant := range 4 {
		sparse, right := variant > 0, variant == 2
		d := newDevice(1 << 20)
		job := k.job(d)
		if sparse {
			var img *sparseStream
			job, img, _ = k.sparse(t, d, nil)
			if variant > 1 { // a delta makes the first range, right or wrong
				job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m,
					makes: func(int) bool { return true }, wrong: func(int) bool { return !right }}}
				job.Reopen = k.reopen
			}
		}
		job.Disk = judging{d, k.image[:64]}
		_, err := update.Install(t.Context(), job)
		if journal := strings.Join(d.journal, " "); !isA[*update.IncompatibleError](err) || !strings.Contains(err.Error(), "sectors of 512") || strings.Contains(journal, "invalidate") {
			t.Errorf("Install = %v after %s; want an IncompatibleError before the slot is invalidated", err, journal)
		}
		job.Disk = judging{d, []byte("else")}
		if sparse {
			continue // its image was read
		}
		if job.Image = (stream{Reader: bytes.NewReader(k.image)}); k.image[0] == 'e' {
			t.Fatal("the image begins so")
		}
		if _, err := update.Install(t.Context(), job); err != nil {
			t.Errorf("Install = %v; want success", err)
		}
	}
}

// Only the beginning of an image is judged, not that of a later range which is the first missing one.
func TestBeginningIsJudged(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d := newDevice(1 << 20)
	copy(d.data, k.image[:8192])
	copy(d.medium, k.image[:8192])
	job := k.job(d)
	job.Disk = judging{d, k.image[65536:65600]}
	if _, err := update.Install(t.Context(), job); err != nil {
		t.Errorf("Install = %v; want success", err)
	}
}
