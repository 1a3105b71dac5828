package boot_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"updater/boot"
)

// recorder records the calls.
type recorder struct {
	boot.Backend
	done []string
}

func (r *recorder) Activate(context.Context, string, int) error {
	r.done = append(r.done, "activate")
	return nil
}

// Files that the boot loader reads are synced before the switch; if that fails, nothing is switched.
func TestSyncFirst(t *testing.T) {
	r := new(recorder)
	b := boot.SyncFirst(r, func() error { r.done = append(r.done, "sync"); return nil })
	if err := b.Activate(t.Context(), "B", 1); err != nil || !slices.Equal(r.done, []string{"sync", "activate"}) {
		t.Errorf("Activate = %v after %v; want sync, activate", err, r.done)
	}
	r, cause := new(recorder), errors.New("disk is gone")
	b = boot.SyncFirst(r, func() error { return cause })
	if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, cause) || !errors.Is(err, boot.ErrState) || len(r.done) > 0 {
		t.Errorf("Activate = %v after %v; want the cause, and no call", err, r.done)
	}
}

func TestWords(t *testing.T) {
	st := boot.State{
		Boots: []string{"B", "B", "A"},
		Slots: []boot.SlotState{{Name: "A", Good: true, TriesLeft: -1}, {Name: "B", TriesLeft: 2}},
	}
	want := []string{
		"next boot: slot B, which has 1 try left after it",
		"the boot after: slot B, which has 0 tries left after it",
		"boot 3: slot A, because slot B was not marked good",
	}
	if got := boot.Words(st); !slices.Equal(got, want) {
		t.Errorf("Words = %q; want %q", got, want)
	}
}
