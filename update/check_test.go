package update_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/update"
	"updater/verify"
)

// TestCheckImage: an image is compared with its map, and with the checksum of the whole, as an install would. Pieces hands the bytes out.
func TestCheckImage(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	changed := func(at int) []byte {
		image := bytes.Clone(k.image)
		image[at] ^= 1
		return image
	}
	for _, c := range []struct {
		name  string
		image stream
		whole string // "" means none
		is    func(error) bool
		tail  bool // the map has a hole at its end
	}{
		{"right", stream{Reader: bytes.NewReader(k.image)}, wholeSum(k.image), nil, false},
		{"without a checksum of the whole", stream{Reader: bytes.NewReader(k.image)}, "", nil, false},
		{"changed", stream{Reader: bytes.NewReader(changed(70_000))}, "", isA[*update.ImageError], false},
		{"changed in a hole", stream{Reader: bytes.NewReader(changed(300_000))}, wholeSum(k.image), nil, false},
		{"another checksum of the whole", stream{Reader: bytes.NewReader(k.image)}, strings.Repeat("ab", 32), isA[*update.ImageError], false},
		{"short", stream{Reader: bytes.NewReader(k.image[:600_000])}, "", isA[*update.SourceError], false},
		{"cut in its last hole", stream{Reader: bytes.NewReader(append(bytes.Clone(k.image), make([]byte, 416)...))}, "", isA[*update.SourceError], true},
		{"cut in a range", stream{Reader: bytes.NewReader(k.image[:70_000])}, "", func(err error) bool {
			e, ok := errors.AsType[*update.SourceError](err)
			return ok && e.Offset == 70_000 && strings.Contains(err.Error(), "it ends there, the bmap says 700000 bytes")
		}, false},
		{"cut where a range begins", stream{Reader: bytes.NewReader(k.image[:65536])}, "", func(err error) bool {
			e, ok := errors.AsType[*update.SourceError](err)
			return ok && e.Offset == 65536 && errors.Is(err, io.ErrUnexpectedEOF)
		}, false},
		{"long", stream{Reader: bytes.NewReader(append(bytes.Clone(k.image), 0))}, "", isA[*update.SourceError], false},
		{"with a bad end", stream{Reader: bytes.NewReader(k.image), end: errInjected}, "", isA[*update.SourceError], false},
		{"with a hole at its end", stream{Reader: bytes.NewReader(append(bytes.Clone(k.image), make([]byte, 8192)...))},
			wholeSum(append(bytes.Clone(k.image), make([]byte, 8192)...)), nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := bmap.CreateOptions{MaxRange: 65536}
			if c.whole != "" {
				o.Update = &bmap.Update{ImageChecksum: c.whole}
			}
			signed := newKit(t, o)
			if c.tail {
				signed.sign(t, append(bytes.Clone(k.image), make([]byte, 8192)...), o)
			}
			m, err := bmap.Parse(signed.doc)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(k.image))
			take := func(p []byte, off int64) error {
				if len(p) == 0 {
					t.Error("a piece of nothing")
				}
				copy(got[off:], p)
				return nil
			}
			for name, err := range map[string]error{
				"CheckImage": update.CheckImage(t.Context(), m, &stream{Reader: bytes.NewReader(all(c.image)), end: c.image.end}),
				"Pieces":     update.Pieces(t.Context(), m, &stream{Reader: bytes.NewReader(all(c.image)), end: c.image.end}, take),
			} {
				if (err == nil) != (c.is == nil) || err != nil && !c.is(err) {
					t.Errorf("%s = %v", name, err)
				}
			}
			if c.is == nil && !bytes.Equal(got, k.image) {
				t.Error("the pieces are not the mapped ranges")
			}
		})
	}
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	fail := func([]byte, int64) error { calls++; return errInjected }
	if err := update.Pieces(t.Context(), m, stream{Reader: bytes.NewReader(k.image)}, fail); !errors.Is(err, errInjected) || calls != 1 {
		t.Errorf("Pieces = %v after %d calls that fail", err, calls)
	}
	for _, at := range []int64{0, 696_320} { // the first piece, and the last one
		ctx, cancel := context.WithCancelCause(t.Context())
		got := int64(-1)
		take := func(_ []byte, off int64) error {
			if got = off; off == at {
				time.Sleep(5 * time.Millisecond) // the other stages end, if they can
				cancel(errInjected)
			}
			return nil
		}
		if err := update.Pieces(ctx, m, stream{Reader: bytes.NewReader(k.image)}, take); !errors.Is(err, errInjected) || got != at {
			t.Errorf("Pieces = %v after the piece at %d, cancelled at that of %d", err, got, at)
		}
	}
	ended, end := context.WithCancelCause(t.Context())
	end(errInjected)
	if err := update.CheckImage(ended, m, stream{Reader: bytes.NewReader(k.image)}); !errors.Is(err, errInjected) {
		t.Errorf("CheckImage = %v; want the cause", err)
	}
}

// all is the whole content of an image.
func all(s stream) []byte {
	b := make([]byte, s.Size())
	_, _ = s.ReadAt(b, 0)
	return b
}

// TestCheckSlot: a slot is compared with a document as before a switch.
func TestCheckSlot(t *testing.T) {
	for _, c := range []struct {
		name, whole, unmapped string
		at                    int64 // byte that is wrong, 0 none, -1 all of them unreadable
		is                    func(error) bool
	}{
		{"right", "right", "zero", 0, nil},
		{"without a checksum of the whole", "", "zero", 0, nil},
		{"a range differs", "", "zero", 70_000, isA[*update.ReadBackError]},
		{"a hole differs", "", "zero", 300_000, isA[*update.ReadBackError]},
		{"a hole that is kept differs", "right", "keep", 300_000, nil},
		{"another checksum of the whole", strings.Repeat("ab", 32), "zero", 0, isA[*update.ImageError]},
		{"unreadable", "", "zero", -1, isA[*update.ReadBackError]},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := &bmap.Update{Unmapped: c.unmapped, ImageChecksum: c.whole}
			k := newKit(t, bmap.CreateOptions{})
			if c.whole == "right" {
				u.ImageChecksum = wholeSum(k.image)
			}
			m, err := bmap.Parse(newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: u}).doc)
			if err != nil {
				t.Fatal(err)
			}
			d := newDevice(1 << 20)
			copy(d.medium, k.image)
			if c.at > 0 {
				d.medium[c.at] ^= 1
			}
			if c.at < 0 {
				d.failAt = 2
			}
			if err := update.CheckSlot(t.Context(), update.NewDocument(m, "", nil), &target{d}, nil); (err == nil) != (c.is == nil) || err != nil && !c.is(err) {
				t.Errorf("CheckSlot = %v", err)
			}
			ended, end := context.WithCancelCause(t.Context())
			end(errInjected)
			if err := update.CheckSlot(ended, update.NewDocument(m, "", nil), &target{d}, nil); !errors.Is(err, errInjected) {
				t.Errorf("CheckSlot = %v; want the cause", err)
			}
		})
	}
}

// TestRecordOfDocument: the record names every key and the newest signature.
func TestRecordOfDocument(t *testing.T) {
	m, err := bmap.Parse(newKit(t, bmap.CreateOptions{Update: &bmap.Update{ImageChecksum: strings.Repeat("ab", 32)}}).doc)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	doc := update.NewDocument(m, "sum", []verify.Signer{{Fingerprint: "one", Time: now}, {Fingerprint: "two", Time: now.Add(-time.Hour)}})
	rec := doc.Record("B", "rootfs", update.OutcomeInstalled, now)
	if !rec.Signed.Equal(now) || strings.Join(rec.Signers, " ") != "one two" || rec.ImageChecksum != strings.Repeat("ab", 32) || rec.BmapChecksum != "sum" ||
		rec.Slot != "B" || rec.Role != "rootfs" || rec.Size != m.ImageSize() || !rec.At.Equal(now) {
		t.Errorf("the record is %+v", rec)
	}
}

// TestErrorTexts: an error names the value found, the value expected, and the place.
func TestErrorTexts(t *testing.T) {
	many := make([]bmap.Span, 9)
	for i := range many {
		many[i] = bmap.Span{Offset: int64(i), Length: 1}
	}
	for want, err := range map[string]error{
		"writing slot B: injected":    &update.WriteError{Slot: "B", Err: errInjected},
		"injected":                    &update.WriteError{Err: errInjected},
		"reading back at 7: injected": &update.ReadBackError{Offset: 7, Ranges: many[:1], Err: errInjected},
		"reading back at 7: injected; 2 ranges differ: 0+1 1+1":                                &update.ReadBackError{Offset: 7, Ranges: many[:2], Err: errInjected},
		"reading back at 7: injected; 8 ranges differ: 0+1 1+1 2+1 3+1 4+1 5+1 6+1 7+1":        &update.ReadBackError{Offset: 7, Ranges: many[:8], Err: errInjected},
		"reading back at 7: injected; 9 ranges differ: 0+1 1+1 2+1 3+1 4+1 5+1 6+1 7+1 ...":    &update.ReadBackError{Offset: 7, Ranges: many, Err: errInjected},
		"the release is for hardware a, b; this device is c, d":                                &update.HardwareError{Want: []string{"a", "b"}, Got: []string{"c", "d"}},
		"the release is for hardware a; the revision of this device is unknown":                &update.HardwareError{Want: []string{"a"}},
		"nothing to do: the release in slot B, version 7, is as new or newer":                  &update.NothingError{Slot: "B", Version: "7", Held: update.HeldNewer},
		"nothing to do: this release failed in slot B; it is tried again without --if-newer":   &update.NothingError{Slot: "B", Held: update.HeldFailed},
		"nothing to do: this release is in slot B; updater activate B switches to it":          &update.NothingError{Slot: "B", Held: update.HeldWaiting},
		"nothing to do: this release is running in slot B":                                     &update.NothingError{Slot: "B", Held: update.HeldRunning},
		"nothing to do: this release is installed in slot B, which boots next":                 &update.NothingError{Slot: "B", Held: update.HeldNext},
		"boot state of slot B: activating it: injected":                                        &update.BootError{Slot: "B", Doing: "activating it", Err: errInjected},
		"reading the image at 9: injected":                                                     &update.SourceError{Offset: 9, Err: errInjected},
		"the update's rollback index is 1; this device takes none below 2":                     &update.RollbackError{Index: 1, Floor: 2},
		"the update has no rollback index; this device takes none below 2":                     &update.RollbackError{Floor: 2},
		"slot B is running and was not marked good, but would be the only fallback":            &update.NotGoodError{Slot: "B"},
		"the update expired at 1970-01-01T00:00:01Z; the trusted time is 1970-01-01T00:00:02Z": &update.ExpiredError{Expires: time.Unix(1, 0), Now: time.Unix(2, 0)},
	} {
		if err.Error() != want {
			t.Errorf("the text is %q; want %q", err, want)
		}
	}
	unknown, other := (&update.HardwareError{}).Hint(), (&update.HardwareError{Got: []string{"c"}}).Hint()
	if !strings.Contains(unknown, "configuration") || unknown == other {
		t.Errorf("the hints are %q and %q", unknown, other)
	}
}
