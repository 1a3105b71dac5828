package install_test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/internal/rig"
)

// raucDevice is a device that RAUC updates: its boot loader's state on the disk image of a rig, changed as RAUC's own boot selection does
// (src/bootchooser.c), and a boot by RAUC's script.
type raucDevice interface {
	vars(r *rig.Rig) string
	installed(r *rig.Rig, slot, order string) // RAUC has installed a bundle into a slot and made it the first choice
	markGood(r *rig.Rig, slot string)
	boot(r *rig.Rig) string
}

// grubDevice has ORDER, x_OK and x_TRY.
type grubDevice struct{}

const (
	getGrubenv = `mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.now; `
	putGrubenv = `; mcopy -o -i disk.img@@1M env.now ::/grub/grubenv`
)

func (grubDevice) vars(r *rig.Rig) string { return r.Sh(getGrubenv + "grub-editenv env.now list") }
func (grubDevice) installed(r *rig.Rig, slot, order string) {
	r.Sh(getGrubenv + fmt.Sprintf("grub-editenv env.now set ORDER=%q %s_OK=1 %s_TRY=0", order, slot, slot) + putGrubenv)
}

func (grubDevice) markGood(r *rig.Rig, slot string) {
	r.Sh(getGrubenv + fmt.Sprintf("grub-editenv env.now set %s_OK=1 %s_TRY=0", slot, slot) + putGrubenv)
}

func (grubDevice) boot(r *rig.Rig) string {
	r.Sh(getGrubenv)
	areas := [][]byte{r.Read("env.now")}
	slot := boottest.GRUBScript(areas)
	r.Write("env.now", areas[0])
	r.Sh("true" + putGrubenv)
	return slot
}

// ubootDevice has BOOT_ORDER and BOOT_x_LEFT.
type ubootDevice struct{}

func (ubootDevice) vars(r *rig.Rig) string { return r.Sh("fw_printenv -c fw_env.config") }
func (ubootDevice) set(r *rig.Rig, name, value string) {
	r.Sh(`fw_setenv -c fw_env.config "$0" "$1"`, name, value)
}

func (d ubootDevice) installed(r *rig.Rig, slot, order string) {
	d.set(r, "BOOT_"+slot+"_LEFT", "3")
	d.set(r, "BOOT_ORDER", order)
}

func (d ubootDevice) markGood(r *rig.Rig, slot string) { d.set(r, "BOOT_"+slot+"_LEFT", "3") }

// boot is contrib/uboot.sh of RAUC: the first slot of BOOT_ORDER with boots left loses one; if there is none, all slots get 3 again.
func (d ubootDevice) boot(r *rig.Rig) string {
	get := func(name string) string {
		for line := range strings.Lines(d.vars(r)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
				return v
			}
		}
		return ""
	}
	for slot := range strings.FieldsSeq(get("BOOT_ORDER")) {
		left, err := strconv.ParseInt(strings.TrimPrefix(get("BOOT_"+slot+"_LEFT"), "0x"), 16, 64)
		if err == nil && left > 0 {
			d.set(r, "BOOT_"+slot+"_LEFT", strconv.FormatInt(left-1, 16))
			return slot
		}
	}
	d.set(r, "BOOT_A_LEFT", "3")
	d.set(r, "BOOT_B_LEFT", "3")
	return ""
}

// TestTakeover: a device that RAUC updates gets this program with its next bundle and goes on with releases. Boot script and variables stay; the
// state store is a file, as no partition is free. RAUC's own changes of the variables afterwards still work.
func TestTakeover(t *testing.T) {
	for backend, d := range map[string]raucDevice{"grub": grubDevice{}, "uboot": ubootDevice{}} {
		t.Run(backend, func(t *testing.T) {
			if _, err := exec.LookPath("fw_setenv"); err != nil {
				t.Skip("fw_setenv is not installed")
			}
			r := rig.New(t)
			r.Sh(`cp --sparse=always "$0" disk.img; mkdir data; printf 'disk.img 0x100000 0x4000\ndisk.img 0x104000 0x4000\n' > fw_env.config`,
				rig.Shared()+"/"+backend+".img")
			boots := func(want string) {
				t.Helper()
				if got := d.boot(r); got != want {
					t.Fatalf("slot %q boots, want %q; the variables are\n%s", got, want, d.vars(r))
				}
				// The system that runs knows its slot from the kernel command line, here from the configuration.
				r.Write("config.toml", []byte("state = \"data/updater.state\"\n"+strings.Replace(rig.Configs[backend],
					`booted = "A"`, "dialect = \"rauc\"\nbooted = \""+want+"\"", 1)))
			}
			release := func(version string, index int) string {
				dir := "release-" + version
				r.Sh(`mkdir "$0"; cp --sparse=always image.img "$0"/rootfs.img; printf "$0" | dd of="$0"/rootfs.img bs=4096 seek=10 conv=notrunc status=none`, dir)
				r.Expect(0, "", "release", "create", "--product", "demo", "--version", version, "--rollback-index", strconv.Itoa(index),
					"-o", dir+"/release.toml", "rootfs="+dir+"/rootfs.img")
				r.Sign(dir+"/release.toml", rig.Release...)
				return dir
			}
			run := func(want int, words string, args ...string) {
				t.Helper()
				r.Expect(want, words, append(args, "--config", "config.toml")...)
			}

			boots("A")
			d.markGood(r, "A")
			d.installed(r, "B", "B A") // the bundle with this program
			boots("B")
			run(0, "slot B  trying", "status")
			run(16, "not marked good", "install", release("0.9", 4))
			run(0, "slot B is good", "mark", "good")

			run(0, "installed version 1.0 into slot A", "install", release("1.0", 5))
			boots("A")
			run(0, "slot A is good", "mark", "good")
			run(0, "no rollback index below 5", "status")
			run(3, "", "install", "release-1.0")
			run(12, "none below 5", "install", "release-0.9")

			// A release that does not come up falls back, by RAUC's script.
			run(0, "into slot B", "install", release("2.0", 6))
			boots("B")
			for range 2 {
				if backend == "uboot" { // three tries
					boots("B")
				}
			}
			boots("A")
			run(0, "1.0 (good ", "status")

			// RAUC goes on as well: the variables are its own.
			d.installed(r, "B", "B A")
			boots("B")
			d.markGood(r, "B")
			run(0, "boots next slot B", "status")
		})
	}
}
