package boot_test

import (
	"errors"
	"testing"

	"updater/boot"
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
		{cmdline: "updater.slot=A rauc.slot=A root=PARTLABEL=rootfs_a", want: "A"},
		{cmdline: "root=PARTLABEL=rootfs_b", want: "B"},
		{cmdline: "root=PARTUUID=BBBB-02", want: "B"},
		{cmdline: "root=/dev/vda2 ro", want: "A"},
		{cmdline: "root=/dev/vda2 root=/dev/vda3", want: "B"}, // the kernel takes the last
		{cmdline: "root=/dev/sda1 console=ttyS0", want: ""},
		{cmdline: "root=PARTLABEL=ROOTFS_A", want: ""},
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
