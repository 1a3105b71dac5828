package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/release"
	"updater/update"
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
}

func newSet() *set {
	s := &set{device: newDevice(1 << 20), parts: map[string]*partition{}}
	for _, role := range []string{"boot", "rootfs"} {
		s.parts[role] = &partition{s, role, bytes.Repeat([]byte{0xa5}, 1<<20), bytes.Repeat([]byte{0xa5}, 1<<20)}
	}
	return s
}

func (s *set) OpenSlot(_, role string) (update.Target, error) {
	if role == s.file {
		return &named{partition: s.parts[role]}, s.op("open %s", role)
	}
	return s.parts[role], s.op("open %s", role)
}

// named is a role that is a file: its content counts once it has its name.
type named struct {
	*partition
	size int64
}

func (n *named) Reserve(size int64) error {
	n.size = size
	return n.s.op("reserve %s", n.role)
}

func (n *named) Named(size int64) error { return n.s.op("named %s", n.role) }

func (n *named) Commit() error { return n.s.op("commit %s", n.role) }

func (p *partition) WriteAt(b []byte, off int64) (int, error) {
	if err := p.s.op("write %s", p.role); err != nil {
		return 0, err
	}
	return copy(p.data[off:], b), nil
}

func (p *partition) Zero(off, n int64) error {
	clear(p.data[off : off+n])
	return p.s.op("write %s", p.role)
}

func (p *partition) Flush() error {
	copy(p.medium, p.data)
	return p.s.op("flush %s", p.role)
}

func (p *partition) ReadBackAt(b []byte, off int64) (int, error) {
	return copy(b, p.medium[off:]), p.s.op("read back %s", p.role)
}
func (p *partition) Discard(int64, int64) error { return errors.New("not asked for") }
func (p *partition) WrittenOut() int64          { return 0 }
func (p *partition) Barriers() int              { return 0 }
func (p *partition) Engine() string             { return "memory" }
func (p *partition) Close() error               { return nil }

// files are the images of a release in memory. They implement update.Images.
type files struct {
	maps, images map[string][]byte // by role
}

func (f files) Map(_ context.Context, i release.Image) ([]byte, error) { return f.maps[i.Role], nil }

type closing struct{ stream }

func (closing) Close() error { return nil }

func (f files) Open(_ context.Context, i release.Image) (update.ImageCloser, int64, error) {
	data := f.images[i.Role]
	return closing{stream{Reader: bytes.NewReader(data)}}, int64(len(data)), nil
}

// releaseKit is a signed release of the kit's image for both roles; that of boot has another first byte.
type releaseKit struct {
	*kit
	files
	contents release.Contents
}

func newReleaseKit(t *testing.T) *releaseKit {
	t.Helper()
	k := &releaseKit{kit: newKit(t, bmap.CreateOptions{MaxRange: 65536}), files: files{map[string][]byte{}, map[string][]byte{}}}
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

// resummed puts the right checksum of the file itself into a bmap.
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
	res, err := update.Install(t.Context(), k.job(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if !k.holds(s) || s.next() != "B" {
		t.Errorf("slot %s boots next; both images held: %v", s.next(), k.holds(s))
	}
	r, _ := release.New(k.contents)
	if res.Identity != r.Identity() || len(res.Images) != 2 || res.Images[0].Role != "boot" || res.Index != 7 ||
		res.WrittenBytes != res.Images[0].WrittenBytes+res.Images[1].WrittenBytes {
		t.Errorf("the result is %+v", res)
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

// TestInstallFile: room for a file is taken before the slot is invalidated, and the file gets its name after every role was read back,
// before the install is recorded.
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
		if n <= len(s.journal) && strings.HasPrefix(s.journal[n-1], "read back") && !slices.ContainsFunc(s.journal[:n], isFlush) {
			if err != nil || !k.holds(s) || s.next() != "B" { // what the slot held is compared only: it is written then
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
	}
}

func isFlush(op string) bool { return strings.HasPrefix(op, "flush") }

// TestReleaseRefused: what is wrong with a release is refused before anything is opened for writing.
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
		{"an image too short", func(k *releaseKit, _ *update.Job) { k.images["rootfs"] = k.images["rootfs"][:4096] }, isA[*update.ImageError]},
		{"a partition too small", func(_ *releaseKit, j *update.Job) { j.Disk.(*set).size = 4096 }, isA[*update.IncompatibleError]},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, s := newReleaseKit(t), newSet()
			k.contents.Expires = k.policy.Time.Add(time.Hour)
			job := k.job(t, s)
			c.spoil(k, &job)
			if _, err := update.Install(t.Context(), job); !c.is(err) {
				t.Errorf("Install = %v", err)
			}
			if len(s.journal) > 0 {
				t.Errorf("it did %q", s.journal)
			}
		})
	}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// oneWay brings the images of a release in an order of its own. It implements update.Stream.
type oneWay struct {
	files
	left []string // roles; another word is an image that is not for the slot
	end  error
}

func (o *oneWay) Next(context.Context) (update.StreamImage, error) {
	if len(o.left) == 0 {
		return update.StreamImage{}, o.end
	}
	role := o.left[0]
	o.left = o.left[1:]
	image := closing{stream{Reader: bytes.NewReader(o.images[role])}}
	return update.StreamImage{File: role + ".img", Size: int64(len(o.images[role])), Image: image}, nil
}

// TestStream: the images of a stream are written in its order. One that does not end after them ends without a switch, and what reads back
// wrong is not repaired.
func TestStream(t *testing.T) {
	k := newReleaseKit(t)
	surplus := &release.ArchiveError{Name: "surplus", Msg: "follows the last image"}
	for _, c := range []struct {
		name string
		in   oneWay
		flip bool
		is   func(error) bool
	}{
		{"in another order", oneWay{left: []string{"other", "rootfs", "boot"}, end: io.EOF}, false, func(err error) bool { return err == nil }},
		{"with more behind", oneWay{left: []string{"boot", "rootfs"}, end: surplus}, false, isA[*release.ArchiveError]},
		{"that reads back wrong", oneWay{left: []string{"boot", "rootfs"}, end: io.EOF}, true, isA[*update.ReadBackError]},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSet()
			c.in.files = k.files
			job := k.job(t, s)
			job.Images = &c.in
			s.onOp = func(n int) {
				if c.flip && s.journal[n-1] == "flush rootfs" {
					s.parts["rootfs"].medium[0] = ^k.images["rootfs"][0]
				}
			}
			_, err := update.Install(t.Context(), job)
			if !c.is(err) || (err == nil) != (s.next() == "B") || (err == nil) != s.slots[1].Bootable {
				t.Fatalf("%v, next %s", err, s.next())
			}
			boot, rootfs := slices.Index(s.journal, "write boot"), slices.Index(s.journal, "write rootfs")
			if err == nil && (rootfs > boot || !bytes.HasPrefix(s.parts["boot"].medium, k.images["boot"])) {
				t.Errorf("boot was written at %d, rootfs at %d", boot, rootfs)
			}
		})
	}
}
