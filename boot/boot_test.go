package boot_test

import (
	"errors"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
)

func TestBooted(t *testing.T) {
	slots := []boot.SlotRoot{
		{Name: "A", Roots: []string{"PARTLABEL=rootfs_a", "PARTUUID=aaaa-01", "/dev/vda2"}},
		{Name: "B", Roots: []string{"PARTLABEL=rootfs_b", "PARTUUID=bbbb-02", "/dev/vda3"}},
	}
	for _, c := range []struct {
		cmdline, want string
		bad           bool
	}{
		{cmdline: "quiet updater.slot=B ro", want: "B"},
		{cmdline: "rauc.slot=A", want: "A"},
		{cmdline: "bootchooser.active=B", want: "B"},
		{cmdline: "updater.slot=A rauc.slot=A root=PARTLABEL=rootfs_a", want: "A"},
		{cmdline: "root=PARTLABEL=rootfs_b", want: "B"},
		{cmdline: "root=PARTUUID=BBBB-02", want: "B"},
		{cmdline: "root=/dev/vda2 ro", want: "A"},
		{cmdline: "root=/dev/vda2 root=/dev/vda3", want: "B"}, // the kernel uses the last
		{cmdline: "root=/dev/sda1 console=ttyS0", want: ""},
		{cmdline: "root=PARTLABEL=ROOTFS_A", want: ""},
		{cmdline: "root=partuuid=aaaa-01", want: ""}, // the kernel compares the word as it is
		{cmdline: "", want: ""},
		{cmdline: "updater.slot=C", bad: true},
		{cmdline: "updater.slot=", bad: true},
		{cmdline: "updater.slot=A rauc.slot=B", bad: true},
		{cmdline: "updater.slot=A updater.slot=B", bad: true},
		{cmdline: "updater.slot=A root=PARTLABEL=rootfs_b", bad: true},
	} {
		got, err := boot.Booted(c.cmdline, slots)
		if got != c.want || (err != nil) != c.bad || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("Booted(%q) = %q, %v; want %q, error %v", c.cmdline, got, err, c.want, c.bad)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Fuzz(func(t *testing.T, cmdline string) { witness(t, cmdline) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzCommandLine", 10, 6, func(v []string) bool { return witness(t, v[0]) })
}

// witness reports whether a command line is accepted, and fails if it yields a slot that is not configured.
func witness(t *testing.T, cmdline string) bool {
	slot, err := boot.Booted(cmdline, []boot.SlotRoot{
		{Name: "A", Roots: []string{"PARTLABEL=rootfs_a"}},
		{Name: "B", Roots: []string{"PARTUUID=bb-02"}},
	})
	if err == nil && slot != "" && slot != "A" && slot != "B" {
		t.Fatalf("Booted(%q) = %q", cmdline, slot)
	}
	return err == nil
}
