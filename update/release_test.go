package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/release"
	"updater/update"
	"updater/verify"
)

// set is a device whose slots have two roles. Its boot state and its journal are those of device.
type set struct {
	*device
	parts map[string]*partition
	file  string // role that is a file; "" if none is
}

// partition is one partition of slot B, on a medium with a volatile cache.
type partition struct {
	s            *set
	role         string
	data, medium []byte
	barriers     int           // completed; with set.every one after every write
	end          int64         // with set.every: everything before it was written
	waited       int           // reads that the flush has waited for
	early        chan struct{} // gets a value for every read before end until the flush, which waits for four of them
}

func newSet() *set {
	s := &set{device: newDevice(1 << 20), parts: map[string]*partition{}}
	for _, role := range []string{"boot", "rootfs"} {
		s.parts[role] = &partition{s: s, role: role, data: bytes.Repeat([]byte{0xa5}, 1<<20), medium: bytes.Repeat([]byte{0xa5}, 1<<20), early: make(chan struct{}, 4)}
	}
	return s
}

func (s *set) OpenSlot(_, role string) (update.Target, error) {
	err := s.op("open %s", role)
	if err == nil {
		s.opened++
	}
	if role == s.file {
		return &named{partition: s.parts[role]}, err
	}
	return s.parts[role], err
}

// named is a role that is a file: its content counts once it has its name.
type named struct{ *partition }

func (n *named) Reserve(size int64) error {
	if size != 700_000 {
		return fmt.Errorf("%d bytes are reserved", size)
	}
	return n.s.op("reserve %s", n.role)
}

func (n *named) Named(size int64) error {
	if size != 700_000 {
		return fmt.Errorf("a file of %d bytes is opened", size)
	}
	return n.s.op("named %s", n.role)
}

func (n *named) Commit() error { return n.s.op("commit %s", n.role) }

func (p *partition) WriteAt(b []byte, off int64) (int, error) {
	if err := p.s.op("write %s", p.role); err != nil {
		return 0, err
	}
	n := copy(p.data[off:], b)
	if p.s.every > 0 {
		p.flush(off)
		p.barriers++
	}
	return n, nil
}

func (p *partition) Zero(off, n int64) error {
	clear(p.data[off : off+n])
	return p.s.op("write %s", p.role)
}

func (p *partition) flush(end int64) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	copy(p.medium, p.data)
	p.end = end
}

func (p *partition) Flush() error {
	for ; p.s.every > 0 && p.waited < 4; p.waited++ {
		<-p.early
	}
	p.flush(0)
	return p.s.op("flush %s", p.role)
}

func (p *partition) ReadBackAt(b []byte, off int64) (int, error) {
	err := p.s.op("read back %s", p.role)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if off < p.end {
		select {
		case p.early <- struct{}{}:
		default:
		}
	}
	return copy(b, p.medium[off:]), err
}
func (p *partition) Discard(int64, int64) error { return errors.New("not asked for") }
func (p *partition) WrittenOut() int64          { return 0 }
func (p *partition) Barriers() int              { return p.barriers }
func (p *partition) Engine() string             { return "memory" }
func (p *partition) Close() error               { p.s.closed++; return nil }

// files are the images of a release in memory. They implement update.Images.
type files struct {
	maps, images map[string][]byte // by role
	open         map[string]int    // images that are open
	parts        bool              // their parts can be fetched
	onRead       func(role string)
}

func (f files) Map(_ context.Context, i release.Image) ([]byte, error) {
	if m, ok := f.maps[i.Role]; ok {
		return m, nil
	}
	return nil, errInjected
}

// closing is an open image.
type closing struct {
	stream
	f    files
	role string
}

func (c closing) Read(b []byte) (int, error) {
	if c.f.onRead != nil {
		c.f.onRead(c.role)
	}
	return c.stream.Read(b)
}

func (c closing) Close() error {
	c.f.open[c.role]--
	return nil
}

func (f files) begin(role string) closing {
	f.open[role]++
	return closing{stream{Reader: bytes.NewReader(f.images[role])}, f, role}
}

func (f files) Open(_ context.Context, i release.Image) (update.ImageCloser, int64, error) {
	data, ok := f.images[i.Role]
	switch {
	case !ok:
		return nil, 0, errInjected
	case f.parts:
		return partial{f.begin(i.Role)}, int64(len(data)), nil
	}
	return f.begin(i.Role), int64(len(data)), nil
}

// partial is an image whose parts can be fetched.
type partial struct{ closing }

func (p partial) Plan(*bmap.Map, []bmap.Span) (update.Fetch, error) {
	return update.Fetch{Parts: true}, nil
}

// leaks reports whether an install left anything open.
func (f files) leaks(d *device) bool {
	for _, n := range f.open {
		if n != 0 {
			return true
		}
	}
	return d.opened != d.closed
}

// releaseKit is a signed release of the kit's image for both roles; that of boot has another first byte.
type releaseKit struct {
	*kit
	files
	contents release.Contents
}

func newReleaseKit(t *testing.T) *releaseKit {
	t.Helper()
	k := &releaseKit{kit: newKit(t, bmap.CreateOptions{MaxRange: 65536}), files: files{maps: map[string][]byte{}, images: map[string][]byte{}, open: map[string]int{}}}
	k.contents = release.Contents{Product: "demo", Version: "7", RollbackIndex: 7, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	k.maps["rootfs"], k.images["rootfs"] = k.doc, k.image
	other := bytes.Clone(k.image)
	other[0] ^= 1
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(other[:m.Range(0).Length])
	text := strings.Replace(string(k.doc), m.Range(0).Checksum, hex.EncodeToString(sum[:]), 1)
	k.maps["boot"], k.images["boot"] = resummed(text), other
	for _, role := range []string{"boot", "rootfs"} {
		k.contents.Images = append(k.contents.Images, release.Image{
			Role: role, File: role + ".img", Bmap: role + ".bmap", BmapSHA256: fmt.Sprintf("%x", sha256.Sum256(k.maps[role])),
		})
	}
	return k
}

// resummed corrects the checksum of a bmap over itself.
func resummed(text string) []byte {
	const field = "<BmapFileChecksum>"
	at := strings.Index(text, field) + len(field)
	for text[at] == ' ' {
		at++
	}
	zero := text[:at] + strings.Repeat("0", 64) + text[at+64:]
	return []byte(text[:at] + fmt.Sprintf("%x", sha256.Sum256([]byte(zero))) + text[at+64:])
}

func (k *releaseKit) job(t *testing.T, s *set) update.Job {
	t.Helper()
	r, err := release.New(k.contents)
	if err != nil {
		t.Fatal(err)
	}
	doc := r.Encode()
	return update.Job{
		Boot: s, Disk: s, State: &memory{d: s.device}, Document: doc, Signature: k.signed(doc), Policy: k.policy, Product: "demo",
		Images: k.files, Layout: release.Layout{Slots: []string{"A", "B"}, Roles: []string{"boot", "rootfs"}}, Tries: 3,
	}
}

// holds reports whether the media hold every image of the release.
func (k *releaseKit) holds(s *set) bool {
	for role, p := range s.parts {
		if !bytes.Equal(p.medium[:len(k.image)], k.images[role]) {
			return false
		}
	}
	return true
}

// TestInstallRelease: a slot is invalidated once, every image is written, flushed and read back, and only then the slot is activated once.
func TestInstallRelease(t *testing.T) {
	k, s := newReleaseKit(t), newSet()
	k.onRead = func(role string) {
		if role == "rootfs" && k.open["boot"] != 0 {
			t.Error("the image of rootfs is read while that of boot is open")
		}
	}
	job, p := k.job(t, s), newPhases()
	job.Progress = &p.Progress
	res, err := update.Install(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if !k.holds(s) || s.next() != "B" || k.leaks(s.device) {
		t.Errorf("slot %s boots next; both images held: %v, open %v", s.next(), k.holds(s), k.open)
	}
	r, _ := release.New(k.contents)
	if res.Identity != r.Identity() || len(res.Images) != 2 || !slices.Equal(res.Roles(), []string{"boot", "rootfs"}) || res.Index != 7 || res.Role != "" ||
		res.Product != "demo" || res.Version != "7" || len(res.Signers) != 1 || res.Unmapped != "zero" || res.Engine != "memory" ||
		res.ZeroedBytes != 2*(k.imageSize-res.Images[0].MappedBytes) {
		t.Errorf("the result is %+v", res)
	}
	mapped := res.Images[0].MappedBytes
	for phase, want := range map[update.Phase][]update.Share{
		update.PhaseWrite:    {{Role: "boot", All: 2 * mapped}, {Role: "rootfs", Before: mapped, All: 2 * mapped}},
		update.PhaseReadBack: {{Role: "boot", All: 2 * k.imageSize}, {Role: "rootfs", Before: k.imageSize, All: 2 * k.imageSize}},
		update.PhaseFlush:    {{}},
	} {
		if !slices.Equal(p.of[phase], want) {
			t.Errorf("the shares of %s are %+v; want %+v", phase, p.of[phase], want)
		}
	}
	m := job.State.(*memory)
	for i, rec := range m.records {
		if rec.Slot != "B" || rec.Role != []string{"boot", "rootfs"}[i%2] || rec.Outcome != []update.Outcome{"writing", "installed"}[i/2] || rec.Version != "7" ||
			rec.RollbackIndex != 7 || rec.Release != r.Identity() || !rec.Created.Equal(k.contents.Created) || rec.Size != k.imageSize ||
			rec.BmapChecksum != k.contents.Images[i%2].BmapSHA256 || len(rec.Signers) != 1 || rec.Signed.IsZero() {
			t.Errorf("record %d is %+v", i, rec)
		}
	}
	if len(m.records) != 4 {
		t.Errorf("%d records; want 2 of each role", len(m.records))
	}
	if slices.Contains(s.journal[:slices.Index(s.journal, "invalidate B")], "read back rootfs") {
		t.Errorf("rootfs was prepared before its turn: %q", s.journal)
	}
	journal := slices.Compact(slices.Clone(s.journal))
	order := []string{"open boot", "open rootfs", "record writing", "invalidate B", "write boot", "write rootfs", "flush boot", "flush rootfs",
		"read back boot", "read back rootfs", "record installed", "activate B 3"}
	at := -1
	for _, op := range order {
		next := at + 1 + slices.Index(journal[at+1:], op)
		if next <= at {
			t.Fatalf("no %q behind %q in %q", op, journal[max(at, 0)], journal)
		}
		at = next
	}
	if n := strings.Count(strings.Join(journal, "\n"), "invalidate"); n != 1 || at != len(journal)-1 {
		t.Errorf("%d invalidations; the journal is %q", n, journal)
	}
}

// TestReleasePhases: the images of a server are planned in their turn, before they are written.
func TestReleasePhases(t *testing.T) {
	k, p := newReleaseKit(t), newPhases()
	k.parts = true
	job := k.job(t, newSet())
	job.Progress = &p.Progress
	_, err := update.Install(t.Context(), job)
	if got := strings.Join(p.list, " "); err != nil || got != "check plan write plan write flush readback readback switch" {
		t.Errorf("Install = %v with the phases %s", err, got)
	}
}

// TestReleaseSourceIsGone: ranges that read back wrong are not repaired if their image cannot be opened again.
func TestReleaseSourceIsGone(t *testing.T) {
	k, s := newReleaseKit(t), newSet()
	flips(s, k.files)
	job := k.job(t, s)
	flip := s.onOp
	s.onOp = func(n int) {
		if flip(n); s.journal[n-1] == "flush rootfs" {
			delete(k.images, "rootfs")
		}
	}
	if _, err := update.Install(t.Context(), job); !isA[*update.SourceError](err) || !errors.Is(err, errInjected) || s.next() != "A" || k.leaks(s.device) {
		t.Errorf("Install = %v, next %s; want a SourceError and A", err, s.next())
	}
}

// TestInstallFile: room for a file is reserved before the slot is invalidated, and the file gets its name after every role was read
// back, before the install is recorded.
func TestInstallFile(t *testing.T) {
	k, s := newReleaseKit(t), newSet()
	s.file = "boot"
	if _, err := update.Install(t.Context(), k.job(t, s)); err != nil {
		t.Fatal(err)
	}
	order := []string{"open boot", "reserve boot", "open rootfs", "record writing", "invalidate B", "read back rootfs", "commit boot", "record installed", "activate B 3"}
	at := -1
	for _, op := range order {
		if i := slices.Index(s.journal, op); op != "read back rootfs" && i <= at {
			t.Fatalf("%q is operation %d of %q", op, i, s.journal)
		}
		for at++; s.journal[at] != op; at++ {
		}
	}
	if last := s.journal[len(s.journal)-4]; last != "read back rootfs" || at != len(s.journal)-1 {
		t.Errorf("the journal ends with %q", s.journal[len(s.journal)-5:])
	}
}

// TestReleaseEveryFailure fails every operation in turn: no error ends in a switch, and a success holds everything.
func TestReleaseEveryFailure(t *testing.T) {
	for _, file := range []string{"", "rootfs"} {
		everyFailure(t, file)
	}
}

func everyFailure(t *testing.T, file string) {
	k := newReleaseKit(t)
	for n := 1; ; n++ {
		s := newSet()
		s.failAt, s.file = n, file
		_, err := update.Install(t.Context(), k.job(t, s))
		if k.leaks(s.device) {
			t.Fatalf("operation %d failed: open are %v, %d targets were opened, %d closed", n, k.open, s.opened, s.closed)
		}
		if n <= len(s.journal) && strings.HasPrefix(s.journal[n-1], "read back") && !slices.ContainsFunc(s.journal[:n], isFlush) {
			if err != nil || !k.holds(s) || s.next() != "B" { // a comparison with the old content failed: the range is written
				t.Fatalf("operation %d failed to read what the slot held; Install = %v, slot %s boots next", n, err, s.next())
			}
			continue
		}
		if err == nil {
			if !k.holds(s) || s.next() != "B" {
				t.Errorf("success with operation %d failing; slot %s boots next", n, s.next())
			}
			if n <= len(s.journal) {
				t.Errorf("operation %d (%s) failed without an error", n, s.journal[n-1])
			}
			return
		}
		if s.next() != "A" && !k.holds(s) {
			t.Fatalf("operation %d (%s) failed and slot B boots next", n, s.journal[n-1])
		}
		if op := s.journal[n-1]; !errors.Is(err, errInjected) || !classOf(op, err) {
			t.Fatalf("operation %d (%s) failed; Install = %T %v", n, op, err, err)
		}
		wantNothingAfter(t, s.journal, n, "record failed")
	}
}

func isFlush(op string) bool { return strings.HasPrefix(op, "flush") }

// TestReleaseRefused: a release that is wrong in any way is refused before anything is opened for writing.
func TestReleaseRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(k *releaseKit, j *update.Job)
		is    func(err error) bool
	}{
		{"another product", func(_ *releaseKit, j *update.Job) { j.Product = "else" }, isA[*update.IncompatibleError]},
		{"below the floor", func(_ *releaseKit, j *update.Job) { j.State.(*memory).floor = 8 }, isA[*update.RollbackError]},
		{"expired", func(k *releaseKit, j *update.Job) { j.Policy.Time = k.contents.Expires.Add(time.Hour) }, isA[*update.ExpiredError]},
		{"a role is missing", func(_ *releaseKit, j *update.Job) { j.Layout.Roles = []string{"boot", "dtb", "rootfs"} }, isA[*release.SlotError]},
		{"an unknown role", func(_ *releaseKit, j *update.Job) { j.Layout.Roles = []string{"rootfs"} }, isA[*release.SlotError]},
		{"maps swapped", func(k *releaseKit, _ *update.Job) {
			k.maps["boot"], k.maps["rootfs"] = k.maps["rootfs"], k.maps["boot"]
		}, isA[*release.PinError]},
		{"an image too short", func(k *releaseKit, _ *update.Job) { k.images["rootfs"] = k.images["rootfs"][:4096] }, ofImage[*update.ImageError]},
		{"an image too long", func(k *releaseKit, _ *update.Job) { k.images["rootfs"] = append(slices.Clone(k.image), 0) }, ofImage[*update.ImageError]},
		{"an empty image", func(k *releaseKit, _ *update.Job) { k.images["rootfs"] = nil }, ofImage[*update.ImageError]},
		{"other hardware", func(_ *releaseKit, j *update.Job) { j.Hardware = []string{"rev1"} }, isA[*update.HardwareError]},
		{"no map", func(k *releaseKit, _ *update.Job) { delete(k.maps, "rootfs") }, func(err error) bool { return errors.Is(err, errInjected) }},
		{"no image", func(k *releaseKit, _ *update.Job) { delete(k.images, "rootfs") },
			func(err error) bool {
				return errors.Is(err, errInjected) && strings.HasPrefix(err.Error(), "image rootfs.img: ")
			}},
		{"a partition too small", func(_ *releaseKit, j *update.Job) { j.Disk.(*set).size = 699_999 }, ofImage[*update.IncompatibleError]},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, s := newReleaseKit(t), newSet()
			k.contents.Expires, k.contents.Hardware = k.policy.Time.Add(time.Hour), []string{"rev2", "rev3"}
			job := k.job(t, s)
			job.Hardware = []string{"rev1", "rev3"}
			job.PreInstall = func(context.Context, update.Planned) error { t.Error("the hook is called"); return nil }
			c.spoil(k, &job)
			if _, err := update.Install(t.Context(), job); !c.is(err) {
				t.Errorf("Install = %v", err)
			}
			if len(s.journal) > 0 || k.leaks(s.device) {
				t.Errorf("it did %q, open are %v", s.journal, k.open)
			}
		})
	}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// ofImage is isA for an error that names the file of an image.
func ofImage[E error](err error) bool { return isA[E](err) && strings.HasPrefix(err.Error(), "image ") }

// TestReleaseConditions: each condition of a release against the device, and the last moment or index that is accepted.
func TestReleaseConditions(t *testing.T) {
	k := newReleaseKit(t)
	expires := time.Now().UTC().Truncate(time.Second).Add(24 * time.Hour)
	for _, c := range []struct {
		name string
		edit func(r *release.Contents, c *update.Conditions)
		is   func(error) bool // nil accepts
	}{
		{"all right", func(*release.Contents, *update.Conditions) {}, nil},
		{"another product", func(_ *release.Contents, c *update.Conditions) { c.Product = "else" }, isA[*update.IncompatibleError]},
		{"a host", func(_ *release.Contents, c *update.Conditions) { c.Product, c.Hardware = update.AnyProduct, nil }, nil},
		{"the last of its revisions", func(_ *release.Contents, c *update.Conditions) { c.Hardware = []string{"x", "rev3"} }, nil},
		{"another revision", func(_ *release.Contents, c *update.Conditions) { c.Hardware = []string{"rev1"} }, isA[*update.HardwareError]},
		{"an unknown revision", func(_ *release.Contents, c *update.Conditions) { c.Hardware = nil }, isA[*update.HardwareError]},
		{"any revision", func(_ *release.Contents, c *update.Conditions) { c.Hardware = []string{update.AnyHardware} }, nil},
		{"for every revision", func(r *release.Contents, c *update.Conditions) { r.Hardware, c.Hardware = nil, nil }, nil},
		{"another revision, but in a slot already", func(_ *release.Contents, c *update.Conditions) { c.Hardware, c.Held = []string{"rev1"}, true }, nil},
		{"the last moment", func(_ *release.Contents, c *update.Conditions) { c.Policy.Time = expires }, nil},
		{"expired", func(_ *release.Contents, c *update.Conditions) { c.Policy.Time = expires.Add(time.Second) }, isA[*update.ExpiredError]},
		{"expired, but in a slot already", func(_ *release.Contents, c *update.Conditions) {
			c.Policy.Time, c.Held = expires.Add(time.Second), true
		}, nil},
		{"that never expires", func(r *release.Contents, _ *update.Conditions) { r.Expires = time.Time{} }, nil},
		{"at the floor", func(_ *release.Contents, c *update.Conditions) { c.Floor = 7 }, nil},
		{"below the floor", func(_ *release.Contents, c *update.Conditions) { c.Floor = 8 }, isA[*update.RollbackError]},
		{"without a signature", func(_ *release.Contents, c *update.Conditions) {
			c.Policy.Keyring = newKit(t, bmap.CreateOptions{}).policy.Keyring
		}, isA[*verify.SignatureError]},
	} {
		t.Run(c.name, func(t *testing.T) {
			contents := k.contents
			contents.Expires, contents.Hardware = expires, []string{"rev2", "rev3"}
			conditions := update.Conditions{Policy: k.policy, Product: "demo", Hardware: []string{"rev2"}}
			conditions.Policy.Time = expires.Add(-time.Hour)
			c.edit(&contents, &conditions)
			r, err := release.New(contents)
			if err != nil {
				t.Fatal(err)
			}
			doc := r.Encode()
			opened, err := update.AcceptRelease(doc, k.signed(doc), conditions)
			if (err == nil) != (c.is == nil) || err != nil && (opened != nil || !c.is(err)) {
				t.Errorf("AcceptRelease = %+v, %v", opened, err)
			}
		})
	}
}

// TestReleaseResult: the result adds up the work on each image. Here one of them resumes, is repaired, is read back while it is
// written and keeps its holes.
func TestReleaseResult(t *testing.T) {
	for _, isStream := range []bool{false, true} {
		releaseResult(t, isStream)
	}
}

func releaseResult(t *testing.T, isStream bool) {
	k, s := newReleaseKit(t), newSet()
	k.maps["rootfs"] = newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Unmapped: bmap.UnmappedKeep, ImageChecksum: wholeSum(k.image)}}).doc
	k.contents.Images[1].BmapSHA256 = fmt.Sprintf("%x", sha256.Sum256(k.maps["rootfs"]))
	s.every = 1
	for _, p := range s.parts {
		clear(p.data)
		copy(p.data[1:8192], k.image[1:])
		p.data[0] = k.images[p.role][0]
		copy(p.medium, p.data)
	}
	s.onOp = func(n int) {
		for role, p := range s.parts {
			if op := s.journal[n-1]; op == "flush "+role && !slices.Contains(s.journal[:n-1], op) {
				p.medium[699_000] ^= 1
			}
		}
	}
	job, p := k.job(t, s), newPhases()
	job.Progress = &p.Progress
	if isStream {
		job.Images = &oneWay{files: k.files, left: []string{"boot", "rootfs"}, end: io.EOF, reopen: true}
	}
	res, err := update.Install(t.Context(), job)
	if err != nil || s.next() != "B" || !k.holds(s) || k.leaks(s.device) {
		t.Fatalf("Install = %v, next %s; open %v", err, s.next(), k.open)
	}
	if res.Unmapped != "" || res.Images[0].Unmapped != "zero" || res.Images[1].Unmapped != "keep" || res.Images[1].ZeroedBytes != 0 {
		t.Errorf("holes: %q of %+v", res.Unmapped, res.Images)
	}
	for _, of := range p.of[update.PhaseReadBack] { // all of boot, and the mapped bytes of rootfs twice
		if of.All != k.imageSize+2*res.Images[1].MappedBytes {
			t.Errorf("the share of the read-back is %+v", of)
		}
	}
	sum := reflect.ValueOf(res.ImageResult)
	for i := range sum.NumField() {
		if sum.Field(i).Kind() != reflect.Int64 {
			continue
		}
		one, two := reflect.ValueOf(res.Images[0]).Field(i).Int(), reflect.ValueOf(res.Images[1]).Field(i).Int()
		if one == 0 || sum.Field(i).Int() != one+two {
			t.Errorf("%s is %d of %d and %d", sum.Type().Field(i).Name, sum.Field(i).Int(), one, two)
		}
	}
	for _, i := range res.Images {
		if i.SkippedBytes != 8192 || i.RepairedBytes != 700_000-696_320 || i.WrittenBytes+i.SkippedBytes != i.MappedBytes {
			t.Errorf("the result of %s is %+v", i.Role, i)
		}
	}
}

// TestReleaseHeld: a release that the state has in a slot is activated if every image reads back, files under their names included. An
// image that is missing, unreadable or different is written.
func TestReleaseHeld(t *testing.T) {
	k := newReleaseKit(t)
	r, err := release.New(k.contents)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(s *set)
		writes bool
		err    error
	}{
		{"both are there", func(*set) {}, false, nil},
		{"the second one differs", func(s *set) { s.parts["rootfs"].medium[0] ^= 1 }, true, nil},
		{"a file", func(s *set) { s.file = "rootfs" }, false, nil},
		{"a file is missing", func(s *set) {
			s.file = "rootfs"
			s.onOp = func(n int) {
				if s.journal[n-1] == "named rootfs" {
					s.failAt = n
				}
			}
		}, true, nil},
		{"a partition cannot be opened", func(s *set) { s.failAt = 1 }, false, errInjected},
		{"a partition cannot be read", func(s *set) { s.failAt = 2 }, true, nil},
		{"the size of a partition cannot be read once", func(s *set) { s.unsized = 2 }, false, errInjected},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSet()
			for role, p := range s.parts {
				clear(p.medium[:k.imageSize])
				copy(p.medium, k.images[role])
				copy(p.data, p.medium)
			}
			c.change(s)
			job, p := k.job(t, s), newPhases()
			job.Progress = &p.Progress
			job.State.(*memory).records = []update.Record{{Slot: "B", Outcome: update.OutcomeInstalled, Release: r.Identity()}}
			res, err := update.Install(t.Context(), job)
			writes := slices.Contains(s.journal, "invalidate B")
			if !errors.Is(err, c.err) || writes != c.writes || (err == nil) != (s.next() == "B") || k.leaks(s.device) {
				t.Fatalf("Install = %+v, %v, next %s; %q, open %v", res, err, s.next(), s.journal, k.open)
			}
			if of := p.of[update.PhaseReadBack]; len(of) > 1 && (of[len(of)-2].Before != 0 || of[len(of)-1].Before != k.imageSize) {
				t.Errorf("the shares of the read-back are %+v", of)
			}
			if named := slices.Contains(s.journal, "named rootfs"); named != (s.file != "") || !writes && slices.Contains(s.journal, "reserve rootfs") {
				t.Errorf("the file: %q", s.journal)
			}
			if err == nil && !writes && (res.SkippedBytes != res.MappedBytes || !k.holds(s)) {
				t.Errorf("the result is %+v", res)
			}
		})
	}
}

// oneWay brings the images of a release in an order of its own. It implements update.Stream.
type oneWay struct {
	files
	left   []string // roles; another word is an image that is not for the slot
	end    error
	reopen bool
}

func (o *oneWay) Next(context.Context) (update.StreamImage, error) {
	if len(o.left) == 0 {
		return update.StreamImage{}, o.end
	}
	role := o.left[0]
	o.left = o.left[1:]
	for other, n := range o.open {
		if n != 0 {
			return update.StreamImage{}, fmt.Errorf("%s is open still", other)
		}
	}
	image := update.StreamImage{File: role + ".img", Size: int64(len(o.images[role])), Image: o.begin(role)}
	if o.reopen {
		image.Reopen = func(context.Context) (update.ImageCloser, error) { return o.begin(role), nil }
	}
	return image, nil
}

// TestStream: the images of a stream are written in its order. A stream that does not end after them ends without a switch, and ranges
// that read back wrong are repaired only if their image can be opened again.
func TestStream(t *testing.T) {
	k := newReleaseKit(t)
	surplus := &release.ArchiveError{Name: "surplus", Msg: "follows the last image"}
	ok := func(err error) bool { return err == nil }
	changed := bytes.Clone(k.images["boot"])
	changed[0] ^= 2
	for _, c := range []struct {
		name   string
		in     oneWay
		spoil  func(s *set, f files)
		is     func(error) bool
		spared bool // the slot stays bootable
	}{
		{"in another order", oneWay{left: []string{"other", "rootfs", "boot"}, end: io.EOF}, nil, ok, false},
		{"with more behind", oneWay{left: []string{"boot", "rootfs"}, end: surplus}, nil, isA[*release.ArchiveError], false},
		{"that ends at once", oneWay{end: surplus}, nil, isA[*release.ArchiveError], true},
		{"that reads back wrong", oneWay{left: []string{"boot", "rootfs"}, end: io.EOF}, flips, isA[*update.ReadBackError], false},
		{"that reads back wrong, and comes again", oneWay{left: []string{"boot", "rootfs"}, end: io.EOF, reopen: true}, flips, ok, false},
		{"whose first image is another one", oneWay{left: []string{"boot", "rootfs"}, end: io.EOF},
			func(_ *set, f files) { f.images["boot"] = changed }, isA[*update.ImageError], true},
		{"whose second image is another one", oneWay{left: []string{"rootfs", "boot"}, end: io.EOF},
			func(_ *set, f files) { f.images["boot"] = changed }, isA[*update.ImageError], false},
		{"whose image is too short", oneWay{left: []string{"boot", "rootfs"}, end: io.EOF},
			func(_ *set, f files) { f.images["boot"] = f.images["boot"][:699_999] }, ofImage[*update.ImageError], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, order := newSet(), c.in.left
			c.in.files = k.files
			c.in.images = maps.Clone(k.images)
			job := k.job(t, s)
			job.Images = &c.in
			if c.spoil != nil {
				c.spoil(s, c.in.files)
			}
			_, err := update.Install(t.Context(), job)
			if !c.is(err) || (err == nil) != (s.next() == "B") || (err == nil || c.spared) != s.slots[1].Bootable || k.leaks(s.device) {
				t.Fatalf("%v, next %s; open %v", err, s.next(), k.open)
			}
			boot, rootfs := slices.Index(s.journal, "write boot"), slices.Index(s.journal, "write rootfs")
			if err == nil && ((rootfs < boot) != (order[0] != "boot") || !k.holds(s)) {
				t.Errorf("boot was written at %d, rootfs at %d", boot, rootfs)
			}
		})
	}
	t.Run("that has one file for two roles", func(t *testing.T) {
		k, s := newReleaseKit(t), newSet()
		k.maps["boot"], k.images["boot"] = k.maps["rootfs"], k.images["rootfs"]
		for i := range k.contents.Images {
			k.contents.Images[i] = release.Image{Role: k.contents.Images[i].Role, File: "one.img", Bmap: "one.bmap", BmapSHA256: k.contents.Images[1].BmapSHA256}
		}
		job := k.job(t, s)
		job.Images = &oneWay{files: k.files, end: io.EOF}
		if _, err := update.Install(t.Context(), job); !isA[*update.IncompatibleError](err) || len(s.journal) > 0 {
			t.Errorf("Install = %v after %q; want an IncompatibleError", err, s.journal)
		}
		job.Images = k.files
		if _, err := update.Install(t.Context(), job); err != nil || !k.holds(s) {
			t.Errorf("Install of files = %v", err)
		}
	})
}

// flips has the medium of rootfs lose a byte with its first flush.
func flips(s *set, _ files) {
	s.onOp = func(n int) {
		if op := s.journal[n-1]; op == "flush rootfs" && !slices.Contains(s.journal[:n-1], op) {
			s.parts["rootfs"].medium[0] ^= 0xff
		}
	}
}
