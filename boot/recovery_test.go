package boot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
	"updater/boot/tryboot"
)

// block returns a GRUB environment block of one sector.
func block(lines ...string) []byte {
	text := "# GRUB Environment Block\n" + strings.Join(lines, "\n") + "\n"
	return []byte(text + strings.Repeat("#", 512-len(text)))
}

// RequestRecovery and SpendTry reach the backend through SyncFirst, and are refused where the boot loader lacks them.
func TestRecoveryAndTries(t *testing.T) {
	m := boottest.NewMedium(block("ORDER=B A", "A_LEFT=g", "B_LEFT=2"))
	g, err := grub.New(grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: grub.Tries}, "A")
	if err != nil {
		t.Fatal(err)
	}
	b := boot.SyncFirst(g, func() error { return nil })
	if err := boot.RequestRecovery(t.Context(), b); err != nil {
		t.Error(err)
	}
	if err := boot.SpendTry(t.Context(), b, "A"); !errors.Is(err, boot.ErrRefused) {
		t.Errorf("SpendTry of another slot = %v; want ErrRefused", err)
	}
	if err := boot.SpendTry(t.Context(), b, "B"); err != nil {
		t.Error(err)
	}
	if got := string(m.Snapshot()[0]); !strings.Contains(got, "\nnext_entry=recovery\n") || !strings.Contains(got, "\nB_LEFT=1\n") {
		t.Errorf("the block is %.120q", got)
	}
	disk := boottest.New(boottest.Disk{Areas: [][]byte{[]byte(boottest.Autoboot)}, Files: map[string]string{"tryboot": "\x00"}})
	pi, err := tryboot.New(tryboot.Options{
		Area: disk.Areas()[0], Flag: boottest.TrybootFlag{Vars: boottest.Vars{M: disk}}, Slots: []string{"A", "B"},
		Partition: map[string]int{"A": 2, "B": 3},
	}, "A")
	if err != nil {
		t.Fatal(err)
	}
	other := boot.SyncFirst(pi, func() error { return nil })
	for name, err := range map[string]error{
		"RequestRecovery": boot.RequestRecovery(t.Context(), other), "SpendTry": boot.SpendTry(t.Context(), other, "A"),
	} {
		if !errors.Is(err, boot.ErrRefused) || disk.Writes() > 0 {
			t.Errorf("%s = %v, %d writes; want ErrRefused and none", name, err, disk.Writes())
		}
	}
	hidden := boottest.NewMedium(block("next_entry=0", "ORDER=A B", "next_entry=1"))
	if g, err = grub.New(grub.Options{Area: hidden.Areas()[0], Slots: []string{"A", "B"}, Dialect: grub.Tries}, "A"); err != nil {
		t.Fatal(err)
	}
	if err := boot.RequestRecovery(t.Context(), g); !errors.Is(err, boot.ErrState) || hidden.Writes() > 0 {
		t.Errorf("RequestRecovery with next_entry twice = %v, %d writes; want ErrState and none", err, hidden.Writes())
	}
}

func TestFindingString(t *testing.T) {
	got := fmt.Sprint(boot.Warn("do this", "slot %s", "A"), " ", boot.Finding{Evidence: "that"})
	if want := "slot A; do this that"; got != want {
		t.Errorf("findings print as %q; want %q", got, want)
	}
}

// The running slot of an Android command line is the only slot that the suffix can mean.
func TestAndroidSuffix(t *testing.T) {
	for _, c := range []struct {
		cmdline string
		slots   []string
		want    string
		bad     bool
	}{
		{"androidboot.slot_suffix=_a", []string{"A", "B"}, "A", false},
		{"androidboot.slot_suffix=_b", []string{"system_a", "system_b"}, "system_b", false},
		{"androidboot.slot_suffix=_c", []string{"A", "B"}, "", true},
		{"androidboot.slot_suffix=_a", []string{"x_a", "y_a"}, "", true},
		{"androidboot.slot_suffix=", []string{"A", "B"}, "", true},
	} {
		var slots []boot.SlotRoot
		for _, s := range c.slots {
			slots = append(slots, boot.SlotRoot{Name: s})
		}
		if got, err := boot.Booted(c.cmdline, slots); got != c.want || (err != nil) != c.bad {
			t.Errorf("Booted(%q) among %v = %q, %v; want %q, error %v", c.cmdline, c.slots, got, err, c.want, c.bad)
		}
	}
}
