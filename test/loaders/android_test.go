//go:build vm

package loaders

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"updater/boot"
	"updater/boot/android"
	"updater/boot/boottest"
	"updater/boot/uboot"
)

// TestUBootAndroid: U-Boot's ab_select reads the state that the backend writes into misc, spends its tries, and falls back.
func TestUBootAndroid(t *testing.T) {
	r := newUBoot(t, uboot.RAUC, "bootdelay=0\nbootcmd=ab_select slot mmc 0#misc; echo CHOICE ${slot}; reset\n")
	sh(t, r.dir, `sgdisk -a 8 -n1:4096:+64K -c1:misc sd.img >/dev/null`)
	f, err := os.OpenFile(r.sd, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	area := &boottest.FileArea{F: f, Off: 2<<20 + android.Offset, Len: android.Size}
	control := []byte("_a\x00\x00BCAB\x01\x02\x00\x00\x9f\x00\x9e\x00") // both successful, with a try
	control = append(control, make([]byte, 28-len(control))...)
	_, err = area.WriteAt(binary.LittleEndian.AppendUint32(control, crc32.ChecksumIEEE(control)), 0)
	must(t, err)
	as := func(booted string) boot.Backend {
		b, err := android.New(android.Options{Area: area, Slots: []string{"a", "b"}}, booted)
		must(t, err)
		return b
	}
	check(t, as("a"), "fresh", "a a a")
	r.boot(t, "a")
	must(t, as("a").Invalidate(t.Context(), "b"))
	must(t, as("a").Activate(t.Context(), "b", 2))
	check(t, as("a"), "activated", "b b a")
	for _, want := range []string{"b", "b", "a"} {
		r.boot(t, want)
	}
	must(t, as("a").Activate(t.Context(), "b", 2))
	r.boot(t, "b")
	must(t, as("b").MarkGood(t.Context(), "b"))
	check(t, as("b"), "marked good", "b b b")
	r.boot(t, "b")
	must(t, as("b").MarkBad(t.Context(), "a"))
	r.boot(t, "b")
}
