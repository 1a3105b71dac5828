package update_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/bmap"
	"updater/update"
	"updater/verify"
)

// The device of these tests records every operation in one journal, and can fail, lie or cancel at the
// n-th. Real devices and boot loaders run in the scripts of cmd/updater and in the round trip in QEMU.

var errInjected = errors.New("injected")

type device struct {
	mu      sync.Mutex // of the journal and the medium: read-back is concurrent
	journal []string
	slots   []update.Slot
	size    int64
	data    []byte // of the slot
	medium  []byte // bytes that a flush has made durable
	failAt  int    // operation index from 1; 0 never
	onOp    func(n int)
	flip    int64 // byte that the medium corrupts; -1 none
	ignores bool  // the boot state confirms a switch and does not keep it
	unread  int   // read of the boot state that fails, from 1; 0 none
	unsized int   // size of a partition that is asked for and fails, from 1; 0 none
	opened  int   // targets
	closed  int

	every, writes, barriers int   // every: writes between two barriers, 0 means none; the others are counts
	out                     int64 // bytes that were written, those of an earlier job included
}

func newDevice(size int64) *device {
	return &device{
		size: size, flip: -1, data: bytes.Repeat([]byte{0xa5}, int(size)), medium: bytes.Repeat([]byte{0xa5}, int(size)),
		slots: []update.Slot{{Name: "A", Booted: true, Next: true, Bootable: true, Good: true}, {Name: "B", Bootable: true}},
	}
}

// op records an operation and reports whether it fails.
func (d *device) op(format string, a ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal = append(d.journal, fmt.Sprintf(format, a...))
	if d.onOp != nil {
		d.onOp(len(d.journal))
	}
	if len(d.journal) == d.failAt {
		return errInjected
	}
	return nil
}

func (d *device) Slots(ctx context.Context) ([]update.Slot, error) {
	if d.unread--; d.unread == 0 {
		return nil, errInjected
	}
	return slices.Clone(d.slots), ctx.Err()
}

func (d *device) Invalidate(_ context.Context, slot string) error {
	if err := d.op("invalidate %s", slot); err != nil {
		return err
	}
	for i := range d.slots {
		if d.slots[i].Name == slot {
			d.slots[i].Bootable, d.slots[i].Next = false, false
		} else if d.next() == slot {
			d.slots[i].Next = true
		}
	}
	return nil
}

func (d *device) Activate(ctx context.Context, slot string, tries int) error {
	if err := errors.Join(d.op("activate %s %d", slot, tries), ctx.Err()); err != nil { // as a backend that a signal interrupts
		return err
	}
	if d.ignores {
		return nil
	}
	for i := range d.slots {
		d.slots[i].Next = d.slots[i].Name == slot
		d.slots[i].Bootable = d.slots[i].Bootable || d.slots[i].Next
	}
	return nil
}

func (d *device) SlotSize(string, string) (int64, error) {
	if d.unsized--; d.unsized == 0 {
		return 0, errInjected
	}
	return d.size, nil
}

func (d *device) OpenSlot(slot, role string) (update.Target, error) {
	err := d.op("open %s %s", slot, role)
	if err == nil {
		d.opened++
	}
	return &target{d}, err
}

// compares reports whether operation n, from 1, only compares the old content of the target: its failure costs a write and no more.
func (d *device) compares(n int) bool {
	return d.journal[n-1] == "read back" && !slices.Contains(d.journal[:n], "flush")
}

func (d *device) next() string {
	for _, s := range d.slots {
		if s.Next {
			return s.Name
		}
	}
	return ""
}

type target struct{ d *device }

func (t *target) WriteAt(p []byte, off int64) (int, error) {
	if err := t.d.op("write %d", off); err != nil {
		return 0, err
	}
	if t.d.every > 0 && t.d.writes > 0 && t.d.writes%t.d.every == 0 { // it covers the earlier writes
		if err := t.d.op("barrier"); err != nil {
			return 0, err
		}
		t.d.flush()
		t.d.barriers++
	}
	t.d.writes++
	n := copy(t.d.data[off:], p)
	t.d.out += int64(n)
	return n, nil
}

func (t *target) Zero(off, n int64) error {
	clear(t.d.data[off : off+n])
	return t.d.op("zero %d", off)
}

func (t *target) Flush() error {
	t.d.flush()
	return t.d.op("flush")
}

// flush makes the data durable.
func (d *device) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.medium, d.data)
	if d.flip >= 0 {
		d.medium[d.flip] ^= 1
	}
}

func (t *target) ReadBackAt(p []byte, off int64) (int, error) {
	err := t.d.op("read back")
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	return copy(p, t.d.medium[off:]), err
}
func (t *target) Discard(off, n int64) error {
	for i := range t.d.data[off : off+n] {
		t.d.data[off+int64(i)] = 0xdc
	}
	return t.d.op("discard %d", off)
}
func (t *target) WrittenOut() int64 { return t.d.out }
func (t *target) Barriers() int     { return t.d.barriers }
func (t *target) Engine() string    { return "memory" }
func (t *target) Close() error      { t.d.closed++; return nil }

// stream is an image in memory.
type stream struct {
	*bytes.Reader
	end error
}

func (s stream) Skip(n int64) error {
	if n > int64(s.Len()) {
		return io.ErrUnexpectedEOF
	}
	_, err := s.Seek(n, io.SeekCurrent)
	return err
}

func (s stream) End() error {
	if s.Len() > 0 {
		return fmt.Errorf("%d bytes are left", s.Len())
	}
	return s.end
}

// kit is a signed image.
type kit struct {
	image     []byte
	doc, sig  []byte
	policy    verify.Policy
	signed    func(doc []byte) []byte
	imageSize int64
}

func newKit(t *testing.T, o bmap.CreateOptions) *kit {
	t.Helper()
	dir := t.TempDir()
	k := &kit{imageSize: 700_000, image: make([]byte, 700_000)}
	rng := rand.NewChaCha8([32]byte{7})
	for _, run := range [][2]int{{0, 8192}, {65536, 200_000}, {400_000, 400_100}, {696_320, 700_000}} {
		rng.Read(k.image[run[0]:run[1]])
	}
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeSparse(t, f, k.image)
	o.MaxRange = max(o.MaxRange, -1)
	m, err := bmap.Create(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	k.doc = m.Encode()
	entity, err := openpgp.NewEntity("release", "", "release@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var cert bytes.Buffer
	w, err := armor.Encode(&cert, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(entity.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "release.asc")
	if err := os.WriteFile(keys, cert.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := verify.LoadKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	k.policy = verify.Policy{Keyring: ring, Time: time.Now()}
	k.signed = func(doc []byte) []byte {
		var sig bytes.Buffer
		if err := openpgp.DetachSign(&sig, []*openpgp.Entity{entity}, bytes.NewReader(doc), nil); err != nil {
			t.Fatal(err)
		}
		return sig.Bytes()
	}
	k.sig = k.signed(k.doc)
	return k
}

// writeSparse writes an image with holes in the place of blocks of zeros.
func writeSparse(t *testing.T, f *os.File, image []byte) {
	t.Helper()
	if err := f.Truncate(int64(len(image))); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(image); off += 4096 {
		if p := image[off:min(off+4096, len(image))]; !isZero(p) {
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// wholeSum is the checksum of a whole image.
func wholeSum(image []byte) string {
	sum := sha256.Sum256(image)
	return hex.EncodeToString(sum[:])
}

func isZero(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }

func (k *kit) job(d *device) update.Job {
	return update.Job{
		Boot: d, Disk: d, Document: k.doc, Signature: k.sig, Policy: k.policy, Product: "demo", Role: "rootfs",
		Image: stream{Reader: bytes.NewReader(k.image)}, ImageSize: -1, Tries: 3,
	}
}

func TestInstall(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d := newDevice(1 << 20)
	res, err := update.Install(t.Context(), k.job(d))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{0xa5}, 1<<20)
	copy(want, k.image)
	if !bytes.Equal(d.medium, want) {
		t.Error("the slot is not the image with its holes as zeros and its tail untouched")
	}
	if d.next() != "B" || res.Slot != "B" || res.MappedBytes+res.ZeroedBytes != k.imageSize || len(res.Signers) != 1 || res.Images != nil || !slices.Equal(res.Roles(), []string{"rootfs"}) {
		t.Errorf("next slot %q, result %+v", d.next(), res)
	}
	// The order that is safe.
	order := []string{"open B rootfs", "invalidate B", "write 0", "flush", "read back", "activate B 3"}
	at := -1
	for _, step := range order {
		i := slices.Index(d.journal[at+1:], step)
		if i < 0 {
			t.Fatalf("%q does not come after operation %d: %v", step, at, d.journal)
		}
		at += 1 + i
		for step == "read back" && d.journal[at+1] == step {
			at++
		}
	}
	if at != len(d.journal)-1 {
		t.Errorf("operations after the switch: %v", d.journal[at:])
	}
	if flush := slices.Index(d.journal, "flush"); slices.ContainsFunc(d.journal[flush:], func(s string) bool {
		return strings.HasPrefix(s,
			"write") || strings.HasPrefix(s, "zero")
	}) {
		t.Errorf("data was written after the last flush: %v", d.journal)
	}
}

// A range too long to be held is written as it streams, and judged before the switch.
func TestLongRanges(t *testing.T) {
	image := make([]byte, 11<<20)
	rng := rand.NewChaCha8([32]byte{9})
	rng.Read(image)
	k := newKit(t, bmap.CreateOptions{})
	k.sign(t, image, bmap.CreateOptions{MaxRange: -1})
	d := newDevice(12 << 20)
	if _, err := update.Install(t.Context(), k.job(d)); err != nil || d.next() != "B" {
		t.Fatalf("Install = %v, next %s", err, d.next())
	}
	several := newKit(t, bmap.CreateOptions{MaxRange: -1})
	d = newDevice(1 << 20)
	job := several.job(d)
	job.Sizes = update.Sizes{Chunk: 4096, Held: 4096}
	if _, err := update.Install(t.Context(), job); err != nil || d.next() != "B" {
		t.Errorf("Install of several long ranges = %v, next %s", err, d.next())
	}
	image[10<<20] ^= 1
	d = newDevice(12 << 20)
	_, err := update.Install(t.Context(), k.job(d))
	if _, ok := errors.AsType[*update.ImageError](err); !ok || d.next() != "A" {
		t.Errorf("Install of a changed image = %v, next %s; want an ImageError and A", err, d.next())
	}
}

// wantNothingAfter fails if a change follows the operation numbered n, which failed, other than the ignored ones. An activation that failed
// is taken back.
func wantNothingAfter(t *testing.T, journal []string, n int, ignored ...string) {
	t.Helper()
	var want []string
	if strings.HasPrefix(journal[n-1], "activate") {
		want = []string{"invalidate B"}
	}
	got := slices.DeleteFunc(slices.Clone(journal[n:]), func(op string) bool { return strings.HasPrefix(op, "read back") || slices.Contains(ignored, op) })
	if !slices.Equal(got, want) {
		t.Fatalf("operation %d (%s) failed, or the install was cancelled then, and %q follow; want %q", n, journal[n-1], got, want)
	}
}

// lateFailure switches and then reports an error.
type lateFailure struct{ update.Boot }

func (l lateFailure) Activate(ctx context.Context, slot string, tries int) error {
	return cmp.Or(l.Boot.Activate(ctx, slot, tries), errInjected)
}

// TestFailedActivationIsTakenBack: the old slot boots next if the activation switched and then failed.
func TestFailedActivationIsTakenBack(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d := newDevice(1 << 20)
	job := k.job(d)
	job.Boot = lateFailure{job.Boot}
	_, err := update.Install(t.Context(), job)
	if b, ok := errors.AsType[*update.BootError](err); !ok || !errors.Is(err, errInjected) || b.Doing != "activating it" || d.next() != "A" || d.slots[1].Bootable {
		t.Errorf("Install = %v; %s boots next, B is bootable: %v", err, d.next(), d.slots[1].Bootable)
	}
}

// If any operation fails, the error names its class, nothing after it changes anything, the old choice stays, and the new slot cannot boot
// once it was touched.
func TestEveryFailure(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	k = newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{ImageChecksum: wholeSum(k.image)}})
	for _, unmapped := range []string{update.UnmappedZero, update.UnmappedDiscard} {
		for n := 1; ; n++ {
			d := newDevice(1 << 20)
			d.failAt = n
			job := k.job(d)
			job.Unmapped = unmapped
			_, err := update.Install(t.Context(), job)
			if d.opened != d.closed {
				t.Fatalf("operation %d failed: %d targets were opened, %d closed", n, d.opened, d.closed)
			}
			if len(d.journal) < n {
				if err != nil {
					t.Fatalf("no operation failed, but Install = %v", err)
				}
				if n < 20 {
					t.Fatalf("an install has only %d operations", n)
				}
				break
			}
			if d.compares(n) {
				if err != nil || d.next() != "B" || unmapped == update.UnmappedZero && !bytes.Equal(d.medium[:len(k.image)], k.image) {
					t.Fatalf("operation %d failed to read what the slot held; Install = %v, next %s; want the image in slot B", n, err, d.next())
				}
				continue
			}
			op := d.journal[n-1]
			if !errors.Is(err, errInjected) || !classOf(op, err) {
				t.Fatalf("operation %d (%s) failed; Install = %T %v", n, op, err, err)
			}
			wantNothingAfter(t, d.journal, n)
			if d.next() != "A" {
				t.Fatalf("operation %d (%s) failed and slot %s is the next choice", n, op, d.next())
			}
			if slices.Contains(d.journal[:n-1], "invalidate B") && d.slots[1].Bootable {
				t.Fatalf("operation %d (%s) failed and slot B is bootable", n, op)
			}
		}
	}
}

// classOf reports whether an error is of the class of a failed operation.
func classOf(op string, err error) bool {
	switch word, _, _ := strings.Cut(op, " "); word {
	case "invalidate", "activate":
		e, ok := errors.AsType[*update.BootError](err)
		return ok && e.Slot == "B"
	case "write", "zero", "discard", "flush", "commit":
		e, ok := errors.AsType[*update.WriteError](err)
		return ok && e.Slot == "B"
	case "read":
		return isA[*update.ReadBackError](err)
	}
	return true
}

// An install that is cancelled at any operation ends soon, and is never a success unless the switch has begun.
func TestEveryCancel(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	ended, end := context.WithCancelCause(t.Context())
	end(errInjected)
	before := newDevice(1 << 20)
	if res, err := update.Install(ended, k.job(before)); err == nil || len(before.journal) > 0 {
		t.Errorf("cancelled before: Install = %v, %v after %v", res, err, before.journal)
	}
	everyCancel(t, k, false)
	everyCancel(t, k, true)
}

func everyCancel(t *testing.T, k *kit, held bool) {
	for n, flush := 0, 0; ; n++ { // never cancelled at first
		ctx, cancel := context.WithCancelCause(t.Context())
		d := newDevice(1 << 20)
		if held {
			copy(d.data, k.image)
			copy(d.medium, k.image)
		}
		d.onOp = func(i int) {
			if i == n {
				cancel(errInjected)
			}
		}
		job := k.job(d)
		job.Sizes, job.State = update.Sizes{Chunk: 8192, Read: 8192}, &memory{d: d}
		_, err := update.Install(ctx, job)
		cancel(nil)
		if d.opened != d.closed {
			t.Fatalf("cancelled at operation %d: %d targets were opened, %d closed", n, d.opened, d.closed)
		}
		if n == 0 {
			flush = slices.Index(d.journal, "flush")
			continue
		}
		if len(d.journal) < n {
			return
		}
		op, rest := d.journal[n-1], slices.DeleteFunc(slices.Clone(d.journal[n:]), func(op string) bool { return op == "read back" || op == "record failed" })
		if op == "record writing" && len(rest) > 0 && rest[0] == "invalidate B" { // both are one step
			rest = rest[1:]
		}
		most := 2 // the hole that was compared, and the chunk after it
		if held || strings.HasPrefix(op, "write") {
			most = 0
		}
		if n < flush && (len(rest) > most || slices.Contains(rest, "flush")) {
			t.Fatalf("cancelled at operation %d (%s), and %q follow; want %d writes at most", n, op, rest, most)
		}
		if op == "record installed" || strings.HasPrefix(op, "activate") {
			if err != nil || d.next() != "B" {
				t.Fatalf("cancelled within the switch: Install = %v, next %s; want a finished switch", err, d.next())
			}
			continue
		}
		if !errors.Is(err, errInjected) || d.next() != "A" {
			t.Fatalf("cancelled at operation %d (%s): Install = %v, next %s; want the cause, and A", n, op, err, d.next())
		}
	}
}

// TestCancelledBeforeSwitch: a cancellation that comes with the end of the last hook ends the install before the switch.
func TestCancelledBeforeSwitch(t *testing.T) {
	stop := errors.New("signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := newSet()
	s.file = "boot"
	job := newReleaseKit(t).job(t, s)
	job.PostInstall = func(context.Context, update.Planned) error { cancel(stop); return nil }
	if _, err := update.Install(ctx, job); !errors.Is(err, stop) || s.next() != "A" || slices.ContainsFunc(s.journal, func(op string) bool {
		return op == "activate B 3" || op == "commit boot" || op == "record installed"
	}) {
		t.Errorf("Install = %v, next %s; %v", err, s.next(), s.journal)
	}
}

// TestWholeChecksum: the slot is compared with the signed checksum of the whole image, whatever the checksums of its ranges are.
func TestWholeChecksum(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	for _, image := range [][]byte{k.image, append(bytes.Clone(k.image), make([]byte, 8192)...)} { // with holes, and one at the end
		for checksum, want := range map[string]string{wholeSum(image): "B", strings.Repeat("ab", 32): "A"} {
			k.sign(t, image, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{ImageChecksum: checksum}})
			d := newDevice(1 << 20)
			_, err := update.Install(t.Context(), k.job(d))
			if _, contradicts := errors.AsType[*update.ImageError](err); d.next() != want || contradicts == (err == nil) {
				t.Errorf("the checksum of the whole is %s: Install = %v, next %s; want %s", checksum, err, d.next(), want)
			}
		}
	}
}

// TestSwitchIsReadBack: an install is no success if the boot state does not hold the switch, or cannot be read before or after it.
func TestSwitchIsReadBack(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	for unread, doing := range []string{"reading the switch back", "reading it", "reading the switch back"} {
		d := newDevice(1 << 20)
		d.unread, d.ignores = unread, unread == 0
		_, err := update.Install(t.Context(), k.job(d))
		if e, ok := errors.AsType[*update.BootError](err); !ok || e.Doing != doing || errors.Is(err, errInjected) != (unread > 0) || (unread == 1) != (len(d.journal) == 0) {
			t.Errorf("Install = %v after %q; want an error of %s", err, d.journal, doing)
		}
	}
}

// A medium that does not hold the bytes it was given is detected wherever the wrong byte is, mapped or not.
func TestReadBack(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for _, flip := range []int64{0, 8191, 8192, 65535, 65536, 300_000, 400_000, 699_999} {
		d := newDevice(1 << 20)
		d.flip = flip
		_, err := update.Install(t.Context(), k.job(d))
		if _, ok := errors.AsType[*update.ReadBackError](err); !ok || d.next() != "A" || d.slots[1].Bootable {
			t.Errorf("byte %d flipped: Install = %v, next %s; want a ReadBackError, A, and B unbootable", flip, err, d.next())
		}
	}
	d := newDevice(1 << 20)
	d.flip = 800_000 // beyond the image
	if _, err := update.Install(t.Context(), k.job(d)); err != nil {
		t.Errorf("a byte beyond the image flipped: Install = %v", err)
	}
}

func TestRefusals(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	weak := newKit(t, bmap.CreateOptions{MaxRange: 65536, ChecksumType: "md5"})
	roled := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Role: "rootfs"}})
	for _, c := range []struct {
		name    string
		change  func(j *update.Job, d *device)
		want    string
		touched bool // the slot may have been marked bad
	}{
		{name: "no signature", change: func(j *update.Job, _ *device) { j.Signature = nil }, want: "sign"},
		{name: "other bytes signed", change: func(j *update.Job, _ *device) { j.Document = append(slices.Clone(j.Document), '\n') }, want: "sign"},
		{name: "zero clock", change: func(j *update.Job, _ *device) { j.Policy.Time = time.Time{} }, want: ""},
		{name: "weak checksums", change: func(j *update.Job, _ *device) { j.Document, j.Signature, j.Policy = weak.doc, weak.sig, weak.policy }, want: "md5"},
		{name: "no role", change: func(j *update.Job, _ *device) {
			j.Document, j.Signature, j.Policy, j.Role = roled.doc, roled.sig, roled.policy, ""
		}, want: "Role"},
		{name: "booted slot", change: func(j *update.Job, _ *device) { j.Slot = "A" }, want: "running"},
		{name: "unknown slot", change: func(j *update.Job, _ *device) { j.Slot = "C" }, want: "not configured"},
		{name: "slot too small", change: func(_ *update.Job, d *device) { d.size = 699_999 }, want: "does not fit"},
		{name: "slot without a size", change: func(j *update.Job, d *device) { j.Disk = unsized{d} }, want: "injected"},
		{name: "known size differs", change: func(j *update.Job, _ *device) { j.ImageSize = 699_999 }, want: "the bmap says"},
		{name: "image ends early", touched: true, change: func(j *update.Job, _ *device) {
			j.Image = stream{Reader: bytes.NewReader(k.image[:500_000])}
		}, want: "unexpected EOF"},
		{name: "image goes on", touched: true, change: func(j *update.Job, _ *device) {
			j.Image = stream{Reader: bytes.NewReader(append(slices.Clone(k.image), 0))}
		}, want: "1 bytes are left"},
		{name: "container does not end", touched: true, change: func(j *update.Job, _ *device) {
			j.Image = stream{Reader: bytes.NewReader(k.image), end: io.ErrUnexpectedEOF}
		}, want: "unexpected EOF"},
		{name: "image changed", touched: true, change: func(j *update.Job, _ *device) {
			other := slices.Clone(k.image)
			other[70_000] ^= 1
			j.Image = stream{Reader: bytes.NewReader(other)}
		}, want: "sha256 is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			j := k.job(d)
			c.change(&j, d)
			_, err := update.Install(t.Context(), j)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Install = %v; want an error with %q", err, c.want)
			}
			if d.next() != "A" {
				t.Errorf("slot %s is the next choice", d.next())
			}
			if !c.touched && len(d.journal) > 0 {
				t.Errorf("refused after %v", d.journal)
			}
			if c.touched && d.slots[1].Bootable {
				t.Error("slot B is bootable")
			}
		})
	}
}

// unsized is a disk whose sizes cannot be read.
type unsized struct{ *device }

func (unsized) SlotSize(string, string) (int64, error) { return 0, errInjected }

// A changed range is refused before its first byte is written, also where it holds more buffers than the other ranges leave.
func TestComparedBeforeWritten(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	k.image[70_000] ^= 1
	for _, held := range []int64{0, 65536} { // more than the range, or as much
		d := newDevice(1 << 20)
		job := k.job(d)
		job.Sizes = update.Sizes{Chunk: 8192, Held: held}
		image, wrote := stream{Reader: bytes.NewReader(k.image)}, make(chan struct{})
		job.Image = sampled{consuming{image, func() int64 { return 0 }}, func() {
			if image.Size()-int64(image.Len()) == 131072-8192 { // the writer has time for the chunks before the last one
				select {
				case <-wrote:
				case <-time.After(50 * time.Millisecond):
				}
			}
		}}
		d.onOp = func(n int) {
			if d.journal[n-1] == "write 65536" {
				close(wrote)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := update.Install(ctx, job); !isA[*update.ImageError](err) {
			t.Errorf("Install = %v; want an ImageError", err)
		}
		cancel()
		if !bytes.Equal(d.data[65536:131072], bytes.Repeat([]byte{0xa5}, 65536)) {
			t.Error("bytes of a range that does not match were written")
		}
	}
}

func TestInactiveSlot(t *testing.T) {
	slot := func(name string, flags string) update.Slot {
		return update.Slot{Name: name, Booted: strings.Contains(flags, "r"), Next: strings.Contains(flags, "n"), Bootable: true, Good: true}
	}
	k := newKit(t, bmap.CreateOptions{})
	for _, c := range []struct {
		name  string
		slots []update.Slot
		asked string
		want  string // "" refuses
	}{
		{"A runs", []update.Slot{slot("A", "rn"), slot("B", "")}, "", "B"},
		{"B runs", []update.Slot{slot("A", ""), slot("B", "rn")}, "", "A"},
		{"A runs, B was activated", []update.Slot{slot("A", "r"), slot("B", "n")}, "", "B"},
		{"recovery, A is next", []update.Slot{slot("A", "n"), slot("B", "")}, "", "B"},
		{"recovery, B is next", []update.Slot{slot("A", ""), slot("B", "n")}, "", "A"},
		{"recovery, nothing boots", []update.Slot{slot("A", ""), slot("B", "")}, "", "A"},
		{"three slots", []update.Slot{slot("A", "r"), slot("B", "n"), slot("C", "")}, "", "C"},
		{"three slots, B is asked for", []update.Slot{slot("A", "r"), slot("B", "n"), slot("C", "")}, "B", "B"},
		{"A runs and is asked for", []update.Slot{slot("A", "r"), slot("B", "n")}, "A", ""},
		{"A runs alone", []update.Slot{slot("A", "rn")}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			d.slots = c.slots
			job := k.job(d)
			job.Slot = c.asked
			res, err := update.Install(t.Context(), job)
			switch {
			case c.want == "" && (len(d.journal) > 0 || !isA[*update.ActiveError](err) && !isA[*update.IncompatibleError](err)):
				t.Fatalf("Install = %v after %v; want a refusal", err, d.journal)
			case c.want != "" && (err != nil || res.Slot != c.want || !slices.Contains(d.journal, "open "+c.want+" rootfs") || !slices.Contains(d.journal, "invalidate "+c.want)):
				t.Fatalf("Install chose %+v, %v; want slot %s: %v", res, err, c.want, d.journal)
			}
		})
	}
}

// The device falls back to the running slot: nothing is installed unless that was marked good.
func TestRunningSlotMustBeGood(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	for _, c := range []struct {
		name        string
		booted      bool
		good, force bool
		want        bool // installs
	}{
		{"good", true, true, false, true},
		{"not good", true, false, false, false},
		{"not good, forced", true, false, true, true},
		{"a recovery", false, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			d.slots[0].Booted, d.slots[0].Good = c.booted, c.good
			j := k.job(d)
			j.ForceFromBad = c.force
			_, err := update.Install(t.Context(), j)
			if _, refused := errors.AsType[*update.NotGoodError](err); (err == nil) != c.want || refused == c.want {
				t.Errorf("Install = %v; want success %v", err, c.want)
			}
			if !c.want && len(d.journal) > 0 {
				t.Errorf("refused after %v", d.journal)
			}
		})
	}
}
