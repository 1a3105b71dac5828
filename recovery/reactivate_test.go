package recovery_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/internal/rig"
	"updater/recovery"
)

// TestReactivate: with no bootable slot left, one that holds what was signed for it boots again, and no other does.
func TestReactivate(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	r.Bmap("i.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
	r.Install(0, "slot B boots next", "--bmap", "i.bmap", "image.img")
	r.Sh(`sed -i '/^booted/d' config.toml
		mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set ORDER= A_OK=0 B_OK=0; mcopy -o -i disk.img@@1M e ::/grub/grubenv
		cp --sparse=always disk.img lost.img; cp -r keys keys.orig`)
	b := rig.SlotOffset("grub", "B")
	state := int64(bytes.Index(r.Read("disk.img"), []byte("UPDMAPS1")))
	if state < 0 {
		t.Fatal("the install has kept no document")
	}
	flip := func(off int64) func() {
		return func() {
			data := r.Read("disk.img")
			data[off] ^= 1
			r.Write("disk.img", data)
		}
	}
	hole := int64(bytes.Index(r.Read("image.img"), make([]byte, 64<<10)))
	for _, c := range []struct {
		name    string
		prepare func()
		slot    string
		want    string // of the error
	}{
		{"as it was", func() {}, "B", "slot A: rootfs: no signed document is kept of it"},
		{"a slot is bootable", func() {
			r.Sh(`grub-editenv e set ORDER=A A_OK=1 A_TRY=0; mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
		}, "", ""},
		{"a byte has changed", flip(b + 100), "", "slot B: rootfs: reading back"},
		{"a byte in a hole has changed", flip(b + hole + 100), "", "slot B: rootfs: reading back"},
		{"the document is damaged", flip(state + 500), "", "slot B: rootfs: no signed document"},
		{"nobody trusts its signer", func() {
			r.Sh("rm keys/*; gpg -q --armor --export other@example.com > keys/other.asc")
		}, "", "slot B: rootfs: "},
		{"another product", func() { r.Sh(`sed -i 's/^product = .*/product = "else"/' config.toml`) }, "", `this device is "else"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Sh(`cp --sparse=always lost.img disk.img; rm -r keys; cp -r keys.orig keys; sed -i 's/^product = .*/product = "demo"/' config.toml`)
			c.prepare()
			conf, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			d := &recovery.Device{Config: conf, Work: new(initramfs.Work), Say: func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }}
			slot, err := d.Reactivate(t.Context())
			if slot != c.slot || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("slot %q, %v; want %q, %q\n%s", slot, err, c.slot, c.want, out.String())
			}
			if next := r.Next(); c.want != "" && next != c.slot {
				t.Errorf("slot %q boots next; want %q", next, c.slot)
			}
		})
	}
}
