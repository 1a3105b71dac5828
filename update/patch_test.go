package update_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/update"
)

// patchedStream is an image in memory with a patch beside it.
type patchedStream struct {
	sparseStream
	patch   update.Patch
	err     error
	already bool // the patch was asked for
}

func (p *patchedStream) Patch(_ context.Context, _ update.Seed, _ *bmap.Map, checksum string) (update.Patch, error) {
	if p.already || len(checksum) != 64 {
		p.t.Errorf("Patch is called twice, or for the map %q", checksum)
	}
	p.already = true
	return p.patch, p.err
}

// fakePatch makes ranges of an image, some of them wrong.
type fakePatch struct {
	t       *testing.T
	k       *kit
	m       *bmap.Map
	makes   func(i int) bool
	wrong   func(i int) bool
	check   func(int, []byte) bool
	made    []int
	closed  int
	next    func(i int) // is called for every range that is made
	err     error       // of Plan
	list    []int       // the result of Plan
	bytes   int64       // 0 is 10
	index   bool
	planned bool
}

func (f *fakePatch) Plan(_ context.Context, want []int, check func(int, []byte) bool) ([]int, update.PatchFetch, error) {
	f.check = check
	fetch := update.PatchFetch{Bytes: cmp.Or(f.bytes, 10), Index: f.index}
	f.planned = true
	for _, i := range want {
		if f.makes(i) {
			f.made = append(f.made, i)
			fetch.Made += f.m.Range(i).Length
		}
	}
	f.list = f.made
	return f.made, fetch, f.err
}

func (f *fakePatch) Range(context.Context) []byte {
	i := f.made[0]
	f.made = f.made[1:]
	if f.next != nil {
		f.next(i)
	}
	rng := f.m.Range(i)
	data := bytes.Clone(f.k.image[rng.Offset : rng.Offset+rng.Length])
	if f.wrong(i) {
		data[0]++
	}
	if f.check(i, data) == f.wrong(i) {
		f.t.Errorf("check of range %d is wrong", i)
	}
	if f.wrong(i) {
		return nil
	}
	return data
}

func (f *fakePatch) Close() error { f.closed++; return nil }

// A patch makes the ranges it can; those it makes wrong are written from a second stream, which fetches them alone.
func TestPatch(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	all, none := func(int) bool { return true }, func(int) bool { return false }
	odd := func(i int) bool { return i%2 == 1 }
	for _, c := range []struct {
		name         string
		makes, wrong func(int) bool
		err          error
	}{
		{"all", all, none, nil},
		{"some", odd, none, nil},
		{"all, half of it wrong", all, odd, nil},
		{"all of it wrong", all, all, nil},
		{"no range", none, none, nil},
		{"it cannot be opened", none, none, errInjected},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			job, img, _ := k.sparse(t, d, bytes.Repeat([]byte{0x5a}, 700_000))
			patch := &fakePatch{t: t, k: k, m: m, makes: c.makes, wrong: c.wrong}
			patched := &patchedStream{sparseStream: *img, patch: patch, err: c.err}
			if c.err != nil {
				patched.patch = nil
			}
			job.Image = patched
			var again []*sparseStream
			job.Reopen = func(context.Context) (update.ImageCloser, error) {
				again = append(again, &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t})
				return again[len(again)-1], nil
			}
			res, err := update.Install(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(d.medium[:len(k.image)], k.image) || d.next() != "B" {
				t.Error("the slot does not hold the image, or does not boot next")
			}
			var read, wantAgain, wantMade int64
			for _, s := range again { // one for the first range, before the slot is marked bad, and one for the others
				read += s.read
			}
			for i, rng := range m.Ranges() {
				if c.makes(i) {
					wantMade += rng.Length
				}
				if c.makes(i) && c.wrong(i) {
					wantAgain += rng.Length
				}
			}
			if f := res.Fetch; f.Bytes != m.MappedBytes()-wantMade+wantAgain || f.Requests != int(m.Len()-len(patch.list)+len(wrongOf(patch.list, c.wrong))) ||
				c.err == nil && f.Saved != 1<<20-f.Bytes-10 || res.WrittenBytes != res.MappedBytes {
				t.Errorf("%d bytes are written, fetched is %+v", res.WrittenBytes, f)
			}
			for i, s := range again {
				if s.closed != 1 {
					t.Errorf("stream %d was closed %d times", i, s.closed)
				}
			}
			switch f := res.Fetch; {
			case strings.Contains(strings.Join(res.Warnings, " "), "delta") != (c.err != nil):
				t.Errorf("the warnings are %q", res.Warnings)
			case c.err != nil:
				if f.Delta != nil {
					t.Errorf("delta %+v", f.Delta)
				}
			case f.Delta == nil || f.Delta.Made != wantMade || f.Delta.Again != wantAgain:
				t.Errorf("delta %+v; want %d made, %d again", f.Delta, wantMade, wantAgain)
			case read != wantAgain || len(again) > 2:
				t.Errorf("%d bytes of %d more streams were read; want %d", read, len(again), wantAgain)
			}
			if patched.read != m.MappedBytes()-wantMade {
				t.Errorf("%d bytes were fetched of the image; want %d", patched.read, m.MappedBytes()-wantMade)
			}
			if c.err == nil && patch.closed != 1 {
				t.Errorf("the patch was closed %d times", patch.closed)
			}
		})
	}
}

// A delta beside a file of which no parts are fetched makes the ranges it can, too.
func TestPatchOfFile(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(1 << 20)
	job, img, _ := k.sparse(t, d, bytes.Repeat([]byte{0x5a}, 700_000))
	img.whole = true
	patch := &fakePatch{t: t, k: k, m: m, makes: func(i int) bool { return i%2 == 1 }, wrong: func(int) bool { return false }}
	job.Image, job.Reopen = struct{ update.Patched }{&patchedStream{sparseStream: *img, patch: patch}}, k.reopen
	res, err := update.Install(t.Context(), job)
	if err != nil || !bytes.Equal(d.medium[:len(k.image)], k.image) || !res.Fetch.Parts || res.Fetch.Bytes != 0 || res.Fetch.Delta.Made == 0 {
		t.Errorf("Install = %+v, %v", res, err)
	}
}

func wrongOf(made []int, wrong func(int) bool) []int {
	return slices.DeleteFunc(slices.Clone(made), func(i int) bool { return !wrong(i) })
}

// indexedStream is an image with an index, and maybe a delta.
type indexedStream struct {
	patchedStream
	moved update.Patch
	p     *update.Progress
}

func (s *indexedStream) Moved(_ update.Seed, _ *bmap.Map, progress func(int64)) update.Patch {
	before := s.p.Moves()
	if progress(1); s.p.Moves() == before {
		s.t.Error("reading the other slot is no progress")
	}
	return s.moved
}

// TestChoice: the delta makes ranges, else the index of the image. A file that can be fetched only whole is fetched, unless a small delta
// makes all missing ranges.
func TestChoice(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	all, none := func(int) bool { return true }, func(int) bool { return false }
	but0 := func(i int) bool { return i > 0 }
	mapped := m.MappedBytes()
	for _, c := range []struct {
		name         string
		delta, index func(int) bool // the ranges they make; nil: none
		bytes        int64          // of the one that is used
		whole        bool
		noReopen     bool
		noSeed       bool
		err          error // of the delta's plan
		made         int64
		shown        string // in the result: delta, index or nothing
		fetched      int64
	}{
		{"a delta of all", all, all, 10, false, false, false, nil, mapped, "delta", 0},
		{"a delta of nothing, an index", none, all, 10, false, false, false, nil, mapped, "index", 0},
		{"a delta of nothing, an index of nothing", none, none, 10, false, false, false, nil, 0, "delta", mapped},
		{"an index of nothing", nil, none, 10, false, false, false, nil, 0, "", mapped},
		{"an image that cannot be opened again", all, all, 10, false, true, false, nil, 0, "", mapped},
		{"no other slot", all, all, 10, false, false, true, nil, 0, "", mapped},
		{"a file that is whole, a small delta", all, nil, 10, true, false, false, nil, mapped, "delta", 0},
		{"a file that is whole, a larger delta", all, nil, 11, true, false, false, nil, 0, "delta", mapped},
		{"a file that is whole, a delta of some", but0, nil, 1, true, false, false, nil, 0, "delta", mapped},
		{"a delta that cannot be planned", all, all, 10, false, false, false, errInjected, 0, "", 0},
		{"a delta that cannot be planned at all", none, all, 10, false, false, false, errInjected, 0, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			other := bytes.Repeat([]byte{0x5a}, 700_000)
			held := m.Range(2)
			copy(other[held.Offset:], k.image[held.Offset:held.Offset+held.Length]) // copied in any case
			job, img, s := k.sparse(t, d, other)
			img.whole = c.whole
			delta := &fakePatch{t: t, k: k, m: m, wrong: none, makes: c.delta, bytes: c.bytes, err: c.err}
			index := &fakePatch{t: t, k: k, m: m, wrong: none, makes: c.index, bytes: c.bytes, index: true}
			job.Progress = new(update.Progress)
			image := &indexedStream{patchedStream{sparseStream: *img, patch: delta}, index, job.Progress}
			if c.delta == nil {
				image.patch = nil
			}
			if job.Image = image; c.index == nil {
				job.Image = &image.patchedStream
			}
			if job.Reopen = k.reopen; c.noReopen {
				job.Reopen = nil
			}
			copied := held.Length
			if c.noSeed {
				job.Seed, copied = nil, 0
			}
			res, err := update.Install(t.Context(), job)
			if c.err != nil {
				if !errors.Is(err, c.err) || s.closed != 1 || delta.closed != 1 || d.opened != d.closed {
					t.Errorf("Install = %v; the delta was closed %d times, the other slot %d times", err, delta.closed, s.closed)
				}
				return
			}
			if err != nil || !bytes.Equal(d.medium[:len(k.image)], k.image) {
				t.Fatalf("Install = %v", err)
			}
			shown := ""
			if f := res.Fetch.Delta; f != nil {
				if shown = "delta"; f.Index {
					shown = "index"
				}
				if f.Made != max(0, c.made-copied) || (f.Reason != "") != (c.whole && c.made == 0) {
					t.Errorf("delta %+v", f)
				}
			}
			if shown != c.shown || res.Fetch.Copied != copied || image.read != max(0, c.fetched-copied) || res.Fetch.Parts != (!c.whole || c.made > 0) ||
				(res.Fetch.Reason == "") != res.Fetch.Parts {
				t.Errorf("%q is shown, %d bytes were fetched; %+v", shown, image.read, res.Fetch)
			}
			if c.fetched == 0 && image.Len() < len(k.image) {
				t.Error("nothing is fetched of the image, and it was moved")
			}
			if saved := res.Fetch.Saved; c.whole && (c.made == 0 && saved != 0 || c.made > 0 && saved != 200-10) {
				t.Errorf("%d bytes are saved", res.Fetch.Saved)
			}
			if delta.planned && delta.closed != 1 || index.planned && index.closed != 1 {
				t.Errorf("the delta was closed %d times, the index %d times", delta.closed, index.closed)
			}
		})
	}
}

// A second stream that cannot be opened, or is wrong, ends the install without a switch.
func TestPatchWithoutImage(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(k.image)
	wrong[m.Range(0).Offset]++
	wrong[m.Range(1).Offset]++
	for name, reopen := range map[string]func(context.Context) (update.ImageCloser, error){
		"gone":  func(context.Context) (update.ImageCloser, error) { return nil, errInjected },
		"wrong": func(context.Context) (update.ImageCloser, error) { return &stream{Reader: bytes.NewReader(wrong)}, nil },
	} {
		for bad := range 2 { // the range that the patch makes wrong: the first one, or another one
			d := newDevice(1 << 20)
			job, img, _ := k.sparse(t, d, nil)
			job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m, makes: func(int) bool { return true }, wrong: func(i int) bool { return i == bad }}}
			job.Reopen = reopen
			if _, err := update.Install(t.Context(), job); !isA[*update.SourceError](err) && !isA[*update.ImageError](err) || d.next() == "B" {
				t.Errorf("%s, range %d: Install = %v, %s boots next", name, bad, err, d.next())
			}
		}
	}
}

// A second stream that cannot be planned ends the install, and is closed.
func TestPatchPlansAgain(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	for first := range 2 { // wrong is the first range, or another one
		d := newDevice(1 << 20)
		job, img, _ := k.sparse(t, d, nil)
		job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m, makes: func(int) bool { return true }, wrong: func(i int) bool { return i == first }}}
		again := &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t, plan: func() error { return errInjected }}
		job.Reopen = func(context.Context) (update.ImageCloser, error) { return again, nil }
		if _, err := update.Install(t.Context(), job); !errors.Is(err, errInjected) || !isA[*update.SourceError](err) || again.closed != 1 || d.next() != "A" {
			t.Errorf("Install = %v, next %s; the second stream was closed %d times", err, d.next(), again.closed)
		}
	}
}

// The slot does not boot next if any operation fails, and the next install continues from the ranges that it holds.
func TestPatchEveryOperationFails(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	all, odd := func(int) bool { return true }, func(i int) bool { return i%2 == 1 }
	install := func(d *device) (*update.Result, error) {
		job, img, _ := k.sparse(t, d, bytes.Repeat([]byte{0x5a}, 700_000))
		job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m, makes: all, wrong: odd}}
		job.Reopen = func(context.Context) (update.ImageCloser, error) {
			return &sparseStream{stream: stream{Reader: bytes.NewReader(k.image)}, t: t}, nil
		}
		return update.Install(t.Context(), job)
	}
	var held int64
	for n := 1; ; n++ {
		d := newDevice(1 << 20)
		d.failAt = n
		_, err := install(d)
		if len(d.journal) < n {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if compares := d.compares(n); (err == nil) != compares || err == nil && d.next() != "B" { // such a failure costs a write
			t.Fatalf("operation %d of %q fails: Install = %v, next %s", n, d.journal, err, d.next())
		} else if !compares && (!errors.Is(err, errInjected) || !classOf(d.journal[n-1], err)) {
			t.Fatalf("operation %d (%s) fails: Install = %T %v", n, d.journal[n-1], err, err)
		}
		if d.next() == "B" && !bytes.Equal(d.medium[:len(k.image)], k.image) {
			t.Fatalf("operation %d of %q fails, and an incomplete slot boots next", n, d.journal)
		}
		again := newDevice(1 << 20)
		copy(again.data, d.medium)
		copy(again.medium, d.medium)
		res, err := install(again)
		if err != nil || !bytes.Equal(again.medium[:len(k.image)], k.image) || again.next() != "B" {
			t.Fatalf("after operation %d failed: %v", n, err)
		}
		held = max(held, res.Fetch.Held)
	}
	if held == 0 {
		t.Error("no install went on from what the slot held")
	}
}

// TestLateRangeIsReadBack: a range that a delta made wrong, and that was written after the others, is compared like them.
func TestLateRangeIsReadBack(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	odd := func(i int) bool { return i%2 == 1 }
	for _, late := range []int{1, 2} {
		d := newDevice(1 << 20)
		d.flip = m.Range(late).Offset + 5
		job, img, _ := k.sparse(t, d, bytes.Repeat([]byte{0x5a}, 700_000))
		job.Image = &patchedStream{sparseStream: *img, patch: &fakePatch{t: t, k: k, m: m, makes: func(int) bool { return true }, wrong: odd}}
		job.Reopen = func(context.Context) (update.ImageCloser, error) {
			return &stream{Reader: bytes.NewReader(k.image)}, nil
		}
		if _, err := update.Install(t.Context(), job); !isA[*update.ReadBackError](err) || d.next() != "A" {
			t.Errorf("a byte of range %d flips: Install = %v, next %s; want a ReadBackError and A", late, err, d.next())
		}
	}
}
