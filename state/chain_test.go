package state_test

import (
	"bytes"
	"fmt"
	"testing"

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
		if doc, _, err := state.OpenDocuments(dev, parts).Get("A/rootfs"); cut.Has("first") && (err != nil || !bytes.Equal(doc, first)) {
			return fmt.Errorf("the document beside it is %.20q, %w", doc, err)
		}
		return nil
	})
	do(t, err)
	if t.Logf("%d states after power cuts", states); states < 50 {
		t.Errorf("only %d states were tried", states)
	}
	var none *state.Chain
	if err := none.Put(first); err == nil || none.Get() != nil {
		t.Error("an area without room kept a chain")
	}
}
