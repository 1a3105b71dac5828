package update_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/release"
	"updater/update"
)

// TestIdentity: a release other than the one asked for, and one that lacks a field the device requires, is refused before anything is opened.
func TestIdentity(t *testing.T) {
	k := newReleaseKit(t)
	r, err := release.New(k.contents)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		bare     bool
		identity string
		require  []string
		role     string
		refused  bool
	}{
		{"a bmap", true, identityOf(t, k.kit), nil, "rootfs", false},
		{"another bmap", true, r.Identity(), nil, "rootfs", true},
		{"a release", false, r.Identity(), nil, "", false},
		{"another release", false, identityOf(t, k.kit), nil, "", true},
		{"a bmap without a version", true, "", []string{"version"}, "rootfs", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSet()
			job, d := k.job(t, s), s.device
			if c.bare {
				job = k.kit.job(d)
			}
			job.Identity, job.Require = c.identity, c.require
			res, err := update.Install(t.Context(), job)
			switch {
			case c.refused && (!isA[*update.IncompatibleError](err) || len(d.journal) > 0):
				t.Errorf("Install = %+v, %v after %q; want an IncompatibleError before anything is opened", res, err, d.journal)
			case !c.refused && (err != nil || res.Identity != c.identity || d.next() != "B"):
				t.Errorf("Install = %+v, %v, next %s; want success", res, err, d.next())
			}
		})
	}
}

// TestNarrow: a part of a larger accepted map is installed. The part that is taken belongs to the identity of the release.
func TestNarrow(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	const from, size = 65536, 131072
	narrow := func(_ context.Context, m *bmap.Map) (*bmap.Map, error) {
		if m.ImageSize() != k.imageSize {
			t.Errorf("a map of %d bytes is narrowed; want the accepted one", m.ImageSize())
		}
		return m.Part(from, size, nil)
	}
	install := func(d *device, part string, narrow func(context.Context, *bmap.Map) (*bmap.Map, error)) (*update.Result, *memory, error) {
		job, m := k.job(d), &memory{d: d}
		job.Narrow, job.Part, job.State = narrow, part, m
		job.Image, job.ImageSize = stream{Reader: bytes.NewReader(k.image[from : from+size])}, size
		res, err := update.Install(t.Context(), job)
		return res, m, err
	}
	ids := map[string]bool{identityOf(t, k): true}
	for i, part := range []string{"one", "two", "two"} {
		d := newDevice(size)
		res, _, err := install(d, part, narrow)
		if err != nil || !bytes.Equal(d.medium, k.image[from:from+size]) {
			t.Fatalf("Install = %+v, %v; want the part in the slot", res, err)
		}
		if ids[res.Identity] != (i == 2) {
			t.Errorf("part %s has the identity %s of %v", part, res.Identity, ids)
		}
		ids[res.Identity] = true
	}
	other := newKit(t, bmap.CreateOptions{MaxRange: 16384})
	k, other = other, k
	if res, _, err := install(newDevice(size), "two", narrow); err != nil || ids[res.Identity] {
		t.Errorf("Install of another document = %+v, %v; want another identity than %v", res, err, ids)
	}
	k = other
	d := newDevice(size)
	if _, _, err := install(d, "one", func(context.Context, *bmap.Map) (*bmap.Map, error) { return nil, errInjected }); !errors.Is(err, errInjected) || len(d.journal) > 0 {
		t.Errorf("Install = %v after %q; want the error of Narrow before anything is opened", err, d.journal)
	}
	// The slot was changed since it was installed: the map is narrowed for the comparison, and again.
	_, m, err := install(d, "one", narrow)
	if err != nil {
		t.Fatal(err)
	}
	again := newDevice(size)
	job := k.job(again)
	job.State, job.Narrow, job.Part = &memory{d: again, records: m.records}, narrow, "one"
	job.Image = stream{Reader: bytes.NewReader(k.image[from : from+size])}
	if res, err := update.Install(t.Context(), job); err != nil || res.WrittenBytes != size {
		t.Errorf("Install of a changed slot = %+v, %v; want all of it written", res, err)
	}
}

// TestHooks: each hook gets the planned install, the first one before the slot is opened, the second one after the read-back. Its error
// ends the install there.
func TestHooks(t *testing.T) {
	k, s := newReleaseKit(t), newSet()
	r, err := release.New(k.contents)
	if err != nil {
		t.Fatal(err)
	}
	want := update.Planned{
		Slot: "B", Identity: r.Identity(), Roles: []string{"boot", "rootfs"}, Product: "demo", Version: "7", RollbackIndex: 7, ImageBytes: 2 * k.imageSize,
	}
	var last []string // operation before each hook
	note := func(_ context.Context, p update.Planned) error {
		if last = append(last, append([]string{""}, s.journal...)[len(s.journal)]); !reflect.DeepEqual(p, want) {
			t.Errorf("planned is %+v; want %+v", p, want)
		}
		return nil
	}
	job := k.job(t, s)
	job.PreInstall, job.PostInstall = note, note
	if _, err := update.Install(t.Context(), job); err != nil || !slices.Equal(last, []string{"", "read back rootfs"}) {
		t.Errorf("Install = %v, hooks behind %q", err, last)
	}
	for _, post := range []bool{false, true} {
		s := newSet()
		job := k.job(t, s)
		refuse := func(context.Context, update.Planned) error { return errInjected }
		if job.PreInstall = refuse; post {
			job.PreInstall, job.PostInstall = nil, refuse
		}
		_, err := update.Install(t.Context(), job)
		if !errors.Is(err, errInjected) || s.next() != "A" || slices.Contains(s.journal, "record installed") || post != (len(s.journal) > 0) {
			t.Errorf("post %v: Install = %v, next %s; %q", post, err, s.next(), s.journal)
		}
	}
}

// TestDownloadOnly: the slot is read back and recorded, and stays marked bad. The next download of it does nothing, and an install activates
// it.
func TestDownloadOnly(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Version: "7"}})
	d := newDevice(1 << 20)
	job, m := k.job(d), &memory{d: d}
	job.State, job.DownloadOnly = m, true
	res, err := update.Install(t.Context(), job)
	if err != nil || !res.Downloaded || res.Tries != 0 || d.next() != "A" || d.slots[1].Bootable || d.journal[len(d.journal)-1] != "record installed" {
		t.Fatalf("Install = %+v, %v, next %s: %q", res, err, d.next(), d.journal)
	}
	ops := len(d.journal)
	_, err = update.Install(t.Context(), job)
	if e, ok := errors.AsType[*update.NothingError](err); !ok || e.Held != update.HeldWaiting || e.Slot != "B" || e.Version != "7" || len(d.journal) > ops {
		t.Errorf("another download = %v after %q", err, d.journal[ops:])
	}
	job.DownloadOnly = false
	if res, err = update.Install(t.Context(), job); err != nil || res.Downloaded || res.Tries != 3 || d.next() != "B" ||
		slices.ContainsFunc(d.journal[ops:], func(op string) bool { return strings.HasPrefix(op, "invalidate") }) {
		t.Errorf("Install = %+v, %v, next %s: %q", res, err, d.next(), d.journal[ops:])
	}
}

// TestRestore: the release of the fallback is written into it again although it is recorded there, expired and below the floor, and the
// caller makes the slot the fallback, without a switch. That is not cancelled.
func TestRestore(t *testing.T) {
	expires := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	bare := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Product: "demo", RollbackIndex: 7, Expires: expires}})
	k := newReleaseKit(t)
	k.contents.Expires = expires
	k.contents.Hardware = []string{"rev2"}
	for _, isRelease := range []bool{false, true} {
		for _, fails := range []error{nil, errInjected} {
			s := newSet()
			job, d := k.job(t, s), s.device
			if !isRelease {
				job = bare.job(d)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			m := &memory{d: d, floor: 8}
			job.State = m
			job.Restore = func(ctx context.Context, slot string) error {
				cancel(errors.New("signal"))
				return errors.Join(d.op("restore %s", slot), ctx.Err(), fails)
			}
			last := "restore B"
			if fails != nil {
				last = "invalidate B"
			}
			_, err := update.Install(ctx, job)
			if !errors.Is(err, fails) || d.next() != "A" || d.journal[len(d.journal)-1] != last || slices.Contains(d.journal, "activate B 3") ||
				m.records[len(m.records)-1].Outcome != update.OutcomeInstalled {
				t.Errorf("release %v: Install = %v; want %v, and no switch: %q", isRelease, err, fails, d.journal)
			}
			ops := len(d.journal)
			job.Image = stream{Reader: bytes.NewReader(bare.image)}
			if _, err := update.Install(t.Context(), job); !errors.Is(err, fails) || !slices.Contains(d.journal[ops:], "invalidate B") {
				t.Errorf("release %v: Install of what is recorded = %v: %q", isRelease, err, d.journal[ops:])
			}
		}
	}
}

// phases records the phases of an install and how far the last one got that ended before a hook.
type phases struct {
	update.Progress
	list []string
	of   map[update.Phase][]update.Share
	all  map[update.Phase]int64 // bytes of all its parts
}

func newPhases() *phases {
	p := &phases{of: map[update.Phase][]update.Share{}, all: map[update.Phase]int64{}}
	p.OnPhase = func(phase update.Phase, total int64, of update.Share) {
		p.list = append(p.list, string(phase))
		p.of[phase] = append(p.of[phase], of)
		p.all[phase] += total
	}
	return p
}

// TestPhases: the phases come in order with their amounts, and each one comes to its end.
func TestPhases(t *testing.T) {
	plain := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	whole := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{ImageChecksum: wholeSum(plain.image)}})
	m, err := bmap.Parse(plain.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		kit    *kit
		change func(j *update.Job, d *device)
		want   string
		read   int64 // bytes that are read back, the last time
	}{
		{"an image", plain, nil, "check write flush readback switch", plain.imageSize},
		{"with holes kept", plain, func(j *update.Job, _ *device) { j.Unmapped = update.UnmappedKeep }, "check write flush readback switch", m.MappedBytes()},
		{"with a checksum of the whole", whole, nil, "check write flush readback readback switch", m.MappedBytes()},
		{"from a server", plain, func(j *update.Job, d *device) { *j, _, _ = plain.sparse(t, d, plain.image) }, "check plan write flush readback switch", plain.imageSize},
		{"repaired", whole, func(j *update.Job, d *device) {
			j.Reopen = plain.reopen
			d.flip = 70_000
			d.onOp = func(n int) {
				if d.journal[n-1] == "flush" {
					d.flip = -1
				}
			}
		}, "check write flush readback repair readback switch", m.MappedBytes()},
		{"not repairable", plain, func(_ *update.Job, d *device) { d.flip = 70_000 }, "check write flush readback", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, p := newDevice(1<<20), newPhases()
			job, mem := c.kit.job(d), &memory{d: d}
			if c.change != nil {
				c.change(&job, d)
			}
			job.State, job.Progress = mem, &p.Progress
			job.PostInstall = func(context.Context, update.Planned) error {
				if phase, done, total := p.Sample(); phase != update.PhaseReadBack || done != c.read || total != c.read {
					t.Errorf("the last phase is %s with %d of %d; want %d of the read-back", phase, done, total, c.read)
				}
				return nil
			}
			res, err := update.Install(t.Context(), job)
			if got := strings.Join(p.list, " "); got != c.want || (err == nil) != strings.HasSuffix(c.want, "switch") {
				t.Fatalf("Install = %v with the phases %s; want %s", err, got, c.want)
			}
			for phase, of := range p.of {
				if slices.ContainsFunc(of, func(s update.Share) bool { return s != update.Share{} }) {
					t.Errorf("the shares of %s are %+v; want none of one image", phase, of)
				}
			}
			if p.all[update.PhaseWrite] != m.MappedBytes() || p.all[update.PhaseFlush] != 0 || p.all[update.PhasePlan] != 0 && p.all[update.PhasePlan] != m.MappedBytes() {
				t.Errorf("the phases process %v", p.all)
			}
			if err != nil {
				return
			}
			for _, phase := range p.list {
				if _, timed := res.Seconds[update.Phase(phase)]; !timed {
					t.Errorf("phase %s is not in %v", phase, res.Seconds)
				}
			}
			first, last := mem.records[0].Seconds, mem.records[len(mem.records)-1].Seconds
			if _, timed := last[update.PhaseSwitch]; first != nil || !timed {
				t.Errorf("recorded are the seconds %v, then %v", first, last)
			}
			if last["x"] = 1; maps.Equal(last, res.Seconds) {
				t.Error("the result shares the seconds of the record")
			}
		})
	}
}

// TestProgressOfWrites: bytes count once they are written, together with those that the slot holds; everything else in the read-back.
func TestProgressOfWrites(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 16 << 10})
	d, p := newDevice(1<<20), new(update.Progress)
	const held = 8192 + 2*16<<10 // the first three ranges
	for _, medium := range [][]byte{d.data, d.medium} {
		copy(medium[:8192], k.image)
		copy(medium[65536:65536+2*16<<10], k.image[65536:])
	}
	d.out = 1000 // of an earlier job
	var late, writes, moves int64
	d.onOp = func(n int) {
		phase, done, _ := p.Sample()
		switch op := d.journal[n-1]; {
		case (op == "flush") != (phase == update.PhaseFlush):
			t.Errorf("%s in phase %s", op, phase)
		case strings.HasPrefix(op, "write") && writes == 0: // the reader compares the ranges ahead of it
			writes++
		case strings.HasPrefix(op, "write"):
			if now := p.Moves(); now <= moves {
				t.Errorf("%s: Moves stays %d", op, moves)
			} else {
				moves = now
			}
			if done != held+d.out-1000 {
				t.Errorf("%s: %d bytes are done; want %d", op, done, held+d.out-1000)
			}
		case op == "read back" && slices.Contains(d.journal, "flush"):
			late = max(late, done)
		}
	}
	job := k.job(d)
	job.Progress = p
	if _, err := update.Install(t.Context(), job); err != nil || late == 0 {
		t.Errorf("Install = %v, %d bytes were done while the medium was read", err, late)
	}
}
