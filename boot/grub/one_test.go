package grub_test

import (
	"errors"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
)

// TestOneSlot: the recovery may invalidate the only slot where the script boots the recovery without one. At every power cut the slot boots, or
// the recovery does, and once InvalidateLast has returned only the recovery does.
func TestOneSlot(t *testing.T) {
	for _, c := range []struct {
		name    string
		dialect grub.Dialect
		slots   []string
		booted  string
		ok      bool
	}{
		{"one slot", grub.Tries, []string{"A"}, "", true},
		{"one slot that runs", grub.Tries, []string{"A"}, "A", false},
		{"two slots", grub.Tries, []string{"A", "B"}, "", false},
		{"a script that gives the tries back", grub.RAUC, []string{"A"}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := boottest.New(disk(env(512, "first=1", "ORDER=A", "A_LEFT=g", "A_OK=1", "A_TRY=0", "last=#")))
			g, err := grub.New(grub.Options{Area: m.Areas()[0], Slots: c.slots, Dialect: c.dialect}, c.booted)
			if err != nil {
				t.Fatal(err)
			}
			b := boot.SyncFirst(g, func() error { return nil })
			if err := b.Invalidate(t.Context(), "A"); !errors.Is(err, boot.ErrRefused) {
				t.Errorf("Invalidate of the last slot = %v; want ErrRefused", err)
			}
			err = boot.InvalidateLast(t.Context(), b, "A")
			if !c.ok {
				if !errors.Is(err, boot.ErrRefused) || m.Writes() > 0 {
					t.Errorf("InvalidateLast = %v after %d writes; want ErrRefused", err, m.Writes())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.CrashDisks(func(d boottest.Disk) {
				if got := table(&d); got != "A" && got != "" {
					t.Errorf("after a cut slot %q boots", got)
				}
			})
			if d := m.Disk(); table(&d) != "" {
				t.Error("the invalidated slot boots")
			}
			if err := b.Activate(t.Context(), "A", 2); err != nil {
				t.Fatal(err)
			}
			d := m.Disk()
			for i, want := range []string{"A", "A", ""} {
				if got := table(&d); got != want {
					t.Errorf("boot %d is %q, want %q", i+1, got, want)
				}
			}
		})
	}
}
