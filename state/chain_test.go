package state_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"updater/boot/boottest"
	"updater/internal/crashdisk"
	"updater/state"
)

// A power cut leaves the old chain or the new one, never none: none would trust revoked keys again.
func TestChainVolatileCache(t *testing.T) {
	disk := crashdisk.New(make([]byte, documentArea), crashdisk.Options{Sector: 512})
	dev := disk.Device("state", 0, documentArea)
	s, err := state.Open(dev, state.State{})
	do(t, err)
	do(t, s.Update(func(s *state.State) { s.Floor = 1 }))
	do(t, state.OpenDocuments(dev, parts).Put("A/rootfs", first, nil))
	chain := state.OpenChain(dev)
	if got := chain.Get(); got != nil {
		t.Errorf("an empty area has the chain %.20q", got)
	}
	do(t, chain.Put(second))
	do(t, chain.Put(first))
	disk.Mark("first")
	do(t, chain.Put(second))
	disk.Mark("second")
	states, err := disk.Crashes(crashdisk.Plan{}, func(cut *crashdisk.State) error {
		dev := crashdisk.New(cut.Image, crashdisk.Options{}).Device("state", 0, documentArea)
		got := state.OpenChain(dev).Get()
		switch {
		case !cut.Has("first"):
		case cut.Has("second") && !bytes.Equal(got, second), !bytes.Equal(got, first) && !bytes.Equal(got, second):
			return fmt.Errorf("the chain is %.20q", got)
		}
		if s, err := state.Open(dev, state.State{}); cut.Has("first") && (err != nil || s.State().Floor != 1 || s.Degraded() != "") {
			return fmt.Errorf("the store is %v, %w", s, err)
		}
		if doc, _, err := state.OpenDocuments(dev, parts).Get("A/rootfs"); cut.Has("first") && (err != nil || !bytes.Equal(doc, first)) {
			return fmt.Errorf("the document beside it is %.20q, %w", doc, err)
		}
		return nil
	})
	do(t, err)
	if t.Logf("%d states after power cuts", states); states < 50 {
		t.Errorf("only %d states were tried", states)
	}
}

// TestChain: the newest bytes count, and the older ones while those are damaged; the next bytes replace the damaged or the older ones. A failure of
// the medium is an error and leaves the old bytes or the new ones.
func TestChain(t *testing.T) {
	m := boottest.NewMedium(make([]byte, documentArea))
	put := func(text string) {
		t.Helper()
		do(t, state.OpenChain(m.Areas()[0]).Put([]byte(text)))
	}
	wants := func(want string) {
		t.Helper()
		if got := state.OpenChain(m.Areas()[0]).Get(); string(got) != want {
			t.Fatalf("the chain is %q; want %q", got, want)
		}
	}
	for _, text := range []string{"chain 0", "", "chain 2", "chain 3", "chain 4"} {
		put(text)
		wants(text)
	}
	area := m.Snapshot()[0]
	area[bytes.Index(area, []byte("chain 4"))] ^= 1
	m = boottest.NewMedium(area)
	wants("chain 3")
	put("chain 5")
	wants("chain 5")
	area = m.Snapshot()[0]
	area[bytes.Index(area, []byte("chain 5"))] ^= 1
	m = boottest.NewMedium(area)
	wants("chain 3")
	do(t, state.OpenDocuments(m.Areas()[0], parts).Put("A/rootfs", first, nil))
	wants("chain 3")

	short := boottest.NewMedium(make([]byte, documentArea)) // has documents where the second half of an area has a chain
	do(t, state.OpenDocuments(short.Areas()[0], []string{"keyring/0", "keyring/1"}).Put("keyring/0", []byte("nothing"), nil))
	m = boottest.NewMedium(slices.Concat(area[:documentArea/2], short.Snapshot()[0][:documentArea/2]))
	wants("")
	put("chain 5")
	wants("chain 5")

	m = boottest.NewMedium(area)
	start := m.Snapshot()[0]
	for n := 1; ; n++ {
		m = boottest.NewMedium(start)
		m.FailAt = n
		err := state.OpenChain(m.Areas()[0]).Put([]byte("chain 6"))
		if m.Operations() < n {
			do(t, err)
			return
		}
		m.FailAt = 0
		if got := string(state.OpenChain(m.Areas()[0]).Get()); got != "chain 3" && got != "chain 6" || err == nil && got != "chain 6" {
			t.Errorf("operation %d failed: Put = %v, and the chain is %q", n, err, got)
		}
	}
}
