package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/internal/crashdisk"
	"updater/state"
)

const documentArea = 512 << 10

var (
	parts  = []string{"A/rootfs", "B/rootfs"}
	first  = bytes.Repeat([]byte("<bmap>"), 3000)
	second = bytes.Repeat([]byte("<bmap 2>"), 1000)
)

func TestDocuments(t *testing.T) {
	m := boottest.NewMedium(make([]byte, documentArea))
	area := m.Areas()[0]
	s := open(t, m)
	do(t, s.Update(func(s *state.State) { s.Floor = 3 }))
	d := state.OpenDocuments(area, parts)
	wants := func(key, doc, sig string) {
		t.Helper()
		gotDoc, gotSig, err := state.OpenDocuments(area, parts).Get(key)
		if doc == "" && errors.Is(err, state.ErrNoDocument) {
			return
		}
		if err != nil || string(gotDoc) != doc || string(gotSig) != sig || sig == "" && gotSig != nil {
			t.Errorf("%s has %.20q, %.20q, %v; want %.20q, %.20q", key, gotDoc, gotSig, err, doc, sig)
		}
	}
	wants("A/rootfs", "", "")
	do(t, d.Put("B/rootfs", first, []byte("signature")))
	wants("A/rootfs", "", "")
	wants("B/rootfs", string(first), "signature")
	do(t, d.Put("B/rootfs", second, nil)) // clearsigned
	do(t, d.Put("A/rootfs", first, []byte("sig")))
	wants("B/rootfs", string(second), "")
	wants("A/rootfs", string(first), "sig")
	wants("C/rootfs", "", "")
	do(t, s.Update(func(s *state.State) { s.Floor = 9 }))
	if got := open(t, m); got.State().Floor != 9 || got.Lost() != "" || got.Degraded() != "" {
		t.Errorf("beside documents the store is %+v, %s", got.State(), got.Lost())
	}
	wants("A/rootfs", string(first), "sig")

	for key, size := range map[string]int{"C/rootfs": 1, "A/rootfs": documentArea} { // not known; too large
		if err := d.Put(key, make([]byte, size), nil); err == nil || !strings.Contains(err.Error(), "keeping the signed document of "+key) {
			t.Errorf("Put of %s = %v", key, err)
		}
	}
	wants("A/rootfs", string(first), "sig")
	if got := state.OpenDocuments(boottest.NewMedium(make([]byte, areaSize)).Areas()[0], parts); got != nil {
		t.Error("a small area has room for documents")
	}
	do(t, (*state.Documents)(nil).Put("A/rootfs", first, nil))

	// Other names for the same places: nothing is kept of them.
	for _, key := range []string{"A/rootfs", "B/rootfs"} {
		if doc, _, err := state.OpenDocuments(area, []string{"B/rootfs", "A/rootfs"}).Get(key); !errors.Is(err, state.ErrNoDocument) {
			t.Errorf("%s in another order = %.20q, %v", key, doc, err)
		}
	}

	// Damage anywhere is noticed.
	whole := make([]byte, documentArea)
	if _, err := area.ReadBackAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte("A/rootfs"+string(first[:20]))) - 24
	for _, off := range []int{0, 8, 12, 15, 16, 19, 20, 24, 40, 24 + 8 + len(first), 24 + 8 + len(first) + 2} {
		bad := slices.Clone(whole)
		bad[at+off] ^= 0xff
		if _, _, err := state.OpenDocuments(boottest.NewMedium(bad).Areas()[0], parts).Get("A/rootfs"); !errors.Is(err, state.ErrNoDocument) {
			t.Errorf("byte %d damaged: %v", off, err)
		}
	}
}

// A power cut leaves the old document, the new one, or none, and never harms the store.
func TestDocumentsVolatileCache(t *testing.T) {
	disk := crashdisk.New(make([]byte, documentArea), crashdisk.Options{Sector: 512})
	dev := disk.Device("state", 0, documentArea)
	s, err := state.Open(dev, state.State{})
	do(t, err)
	do(t, s.Update(func(s *state.State) { s.Floor = 1 }))
	d := state.OpenDocuments(dev, parts)
	do(t, d.Put("A/rootfs", first, nil))
	disk.Mark("first")
	do(t, d.Put("A/rootfs", second, nil))
	disk.Mark("second")
	states, err := disk.Crashes(crashdisk.Plan{}, func(cut *crashdisk.State) error {
		dev := crashdisk.New(cut.Image, crashdisk.Options{}).Device("state", 0, documentArea)
		got, _, err := state.OpenDocuments(dev, parts).Get("A/rootfs")
		switch {
		case errors.Is(err, state.ErrNoDocument) && !cut.Has("second"):
		case err != nil:
			return err
		case !bytes.Equal(got, first) && !bytes.Equal(got, second), cut.Has("second") && !bytes.Equal(got, second):
			return fmt.Errorf("the document is %.20q", got)
		}
		if s, err := state.Open(dev, state.State{}); cut.Has("first") && (err != nil || s.State().Floor != 1) {
			return fmt.Errorf("the store is %+v, %w", s.State(), err)
		}
		return nil
	})
	do(t, err)
	if t.Logf("%d states after power cuts", states); states < 50 {
		t.Errorf("only %d states were tried", states)
	}
}

// TestDocumentFailures: no document counts as kept when an operation on the medium failed, or when the medium lost it.
func TestDocumentFailures(t *testing.T) {
	for n := 1; ; n++ {
		m := boottest.NewMedium(make([]byte, documentArea))
		d := state.OpenDocuments(m.Areas()[0], parts)
		m.FailAt = m.Operations() + n
		err := d.Put("A/rootfs", first, nil)
		if m.Operations() < m.FailAt {
			if do(t, err); n < 3 {
				t.Errorf("only %d operations were tried", n-1)
			}
			break
		}
		if _, ok := errors.AsType[*state.Error](err); !ok || !errors.Is(err, boottest.ErrInjected) {
			t.Errorf("operation %d failed: Put = %v", n, err)
		}
	}
	m := boottest.NewMedium(make([]byte, documentArea))
	m.Lie = true
	if err := state.OpenDocuments(m.Areas()[0], parts).Put("A/rootfs", first, nil); err == nil {
		t.Error("Put succeeded on a medium that loses writes")
	}
}

// TestRoom: documents and chain are kept if each has 64 KiB or more, and documents have at most 4 MiB.
func TestRoom(t *testing.T) {
	const least = 2 * (32<<10 + 2*64<<10)
	for size, ok := range map[int]bool{least: true, least - 8192: false} {
		area := boottest.NewMedium(make([]byte, size)).Areas()[0]
		if d, c := state.OpenDocuments(area, parts), state.OpenChain(area); (d != nil) != ok || (c != nil) != ok {
			t.Errorf("%d bytes: documents %v, chain %v; want room: %v", size, d, c, ok)
		}
	}
	odd := boottest.NewMedium(make([]byte, 5*4096+100))
	do(t, open(t, odd).Update(func(s *state.State) { s.Floor = 1 }))
	if text := odd.Snapshot()[0]; !bytes.HasPrefix(text, []byte("UPDSTATE")) || !bytes.HasPrefix(text[2*4096:], []byte("UPDSTATE")) {
		t.Error("the second copy does not begin at half of the area, rounded down to a page")
	}
	area := boottest.NewMedium(make([]byte, 12<<20)).Areas()[0]
	if state.OpenDocuments(area, nil) != nil {
		t.Error("documents of nothing")
	}
	const head = 24 + len("A")
	d := state.OpenDocuments(area, []string{"A"})
	do(t, d.Put("A", make([]byte, 4<<20-head), nil))
	if err := d.Put("A", make([]byte, 4<<20-head+1), nil); err == nil {
		t.Error("a document of more than 4 MiB was kept")
	} else if _, ok := errors.AsType[*state.Error](err); !ok {
		t.Errorf("Put = %T", err)
	}
	var none *state.Chain
	if err := none.Put(first); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("needs %d bytes or more", least)) {
		t.Errorf("Put without room = %v", err)
	} else if _, ok := errors.AsType[*state.Error](err); !ok {
		t.Errorf("Put = %T", err)
	}
}

// TestDocumentsFillTheirRoom: a document of the largest size is kept beside others, one byte more is refused.
func TestDocumentsFillTheirRoom(t *testing.T) {
	d := state.OpenDocuments(boottest.NewMedium(make([]byte, documentArea)).Areas()[0], parts)
	do(t, d.Put("B/rootfs", second, nil))
	largest := 0
	for low, high := 1, documentArea; low < high; {
		n := (low + high) / 2
		if d.Put("A/rootfs", make([]byte, n), nil) == nil {
			largest, low = n, n+1
		} else {
			high = n
		}
	}
	do(t, d.Put("A/rootfs", bytes.Repeat([]byte{1}, largest), nil))
	if doc, _, err := d.Get("A/rootfs"); err != nil || len(doc) != largest || largest < documentArea/5 {
		t.Errorf("a document of %d bytes, the largest: %d bytes, %v", largest, len(doc), err)
	}
	if doc, _, err := d.Get("B/rootfs"); err != nil || !bytes.Equal(doc, second) {
		t.Errorf("the document beside it: %.20q, %v", doc, err)
	}

	area := boottest.NewMedium(make([]byte, documentArea)).Areas()[0]
	do(t, state.OpenDocuments(area, parts[:1]).Put("A/rootfs", make([]byte, largest+1), nil)) // while it had all the room
	if doc, _, err := state.OpenDocuments(area, parts).Get("A/rootfs"); !errors.Is(err, state.ErrNoDocument) {
		t.Errorf("a document larger than its room: %d bytes, %v", len(doc), err)
	}
}
