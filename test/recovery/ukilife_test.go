//go:build vm

package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// Scripts of the slots of TestUKILife: a slot is marked good, prints the image and root that it runs, and installs the release on a second disk.
const (
	ukiMarkGood = `#!/bin/sh
exec >/dev/console 2>&1
for m in vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8; do /usr/bin/busybox modprobe $m; done
/usr/bin/updater mark good
echo "MARKED exit=$?"
`
	ukiAct = `#!/bin/sh
exec >/dev/console 2>&1
b=/usr/bin/busybox
read -r line </proc/cmdline
for word in $line; do
	case $word in demo.uki=*) uki=${word#demo.uki=} ;; updater.slot=*) slot=${word#updater.slot=} ;; esac
done
while read -r dev at rest; do
	if [ "$at" = / ]; then root=$dev; fi
done </proc/mounts
read -r version </etc/demo-version
echo "SLOT $slot UKI $uki ROOT $root $version"
[ -e /dev/vdb ] || exec $b poweroff -f
$b mkdir -p /tmp/stick
$b mount -t vfat -o ro /dev/vdb /tmp/stick
/usr/bin/updater install /tmp/stick/updater/release.toml
echo "INSTALL exit=$?"
/usr/bin/updater status
exec $b reboot -f
`
)

// ukiRelease is the images of one version: a root file system, and a unified kernel image for each slot that names its root.
type ukiRelease struct{ rootfs, a, b string }

// TestUKILife: systemd-boot on OVMF with the configuration that is shipped. Releases of a root file system and a unified kernel image go from
// A into B and back into A; every boot runs the image of its slot and release on the root of its slot.
func TestUKILife(t *testing.T) {
	const loader = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
	if _, err := os.Stat(loader); err != nil {
		t.Skip(err)
	}
	h := &helper{builder: newRig(t).builder, dir: t.TempDir()}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "make", "-s", "-C", root, "build")
	h.builder.Updater = filepath.Join(root, "bin/updater")
	if h.kernel, err = h.builder.Kernel(t.Context()); err != nil {
		t.Fatal(err)
	}
	releases := []ukiRelease{h.ukiRelease(t, 1), h.ukiRelease(t, 2), h.ukiRelease(t, 3)}
	disk := filepath.Join(h.dir, "device.disk")
	run(t, "bash", "-euc", `truncate -s 264M "$1"
		sgdisk -n1:2048:+128M -t1:ef00 -c1:esp -n2:0:+64M -c2:rootfs_a -n3:0:+64M -c3:rootfs_b -n4:0:+2M -c4:state "$1" >/dev/null
		truncate -s 128M "$1.fat"; mkfs.vfat -F 32 "$1.fat" >/dev/null
		mmd -i "$1.fat" ::/EFI ::/EFI/BOOT ::/EFI/Linux ::/EFI/updater ::/loader
		mcopy -i "$1.fat" "$4" ::/EFI/BOOT/BOOTX64.EFI; mcopy -i "$1.fat" "$2" ::/EFI/updater/A.efi; mcopy -i "$1.fat" "$2" ::/EFI/Linux/updater-1-A.efi
		mcopy -i "$1.fat" ../../examples/boot/systemd-boot/loader.conf ::/loader/
		dd if="$1.fat" of="$1" bs=1M seek=1 conv=notrunc status=none
		dd if="$3" of="$1" bs=1M seek=129 conv=notrunc,sparse status=none`, "disk", disk, releases[0].a, releases[0].rootfs, loader)
	boot := func(stick string, end qemu.End, patterns ...string) {
		t.Helper()
		disks := []qemu.Disk{{Path: disk}}
		if stick != "" {
			disks = append(disks, qemu.Disk{Path: stick, ReadOnly: true})
		}
		m, err := qemu.Start(context.WithoutCancel(t.Context()), qemu.Config{
			Name: "uki", Disks: disks, OVMFVars: filepath.Join(h.dir, "vars.fd"), Timeout: 6 * time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer m.PowerCut()
		expect(t, m, patterns...)
		ends(t, m, end)
	}
	boot(h.ukiStick(t, 2, releases[1]), qemu.Reset, `MARKED exit=0`, `SLOT A UKI 1 ROOT /dev/vda2 uki-1`, `slot B boots next`, `INSTALL exit=0`)
	boot(h.ukiStick(t, 3, releases[2]), qemu.Reset, `MARKED exit=0`, `SLOT B UKI 2 ROOT /dev/vda3 uki-2`, `slot A boots next`, `INSTALL exit=0`)
	boot("", qemu.PowerOff, `MARKED exit=0`, `SLOT A UKI 3 ROOT /dev/vda2 uki-3`)
	run(t, "bash", "-euc", `for s in a:A b:B; do mcopy -n -i "$1@@1M" ::/EFI/updater/${s#*:}.efi "$2/got-${s%:*}"; done
		cmp "$3" "$2/got-a"; cmp "$4" "$2/got-b"; ! mdir -b -i "$1@@1M" ::/EFI/updater | grep new`, "esp", disk, h.dir, releases[2].a, releases[1].b)
}

func (h *helper) ukiRelease(t *testing.T, version int) (r ukiRelease) {
	t.Helper()
	config, err := os.ReadFile("../../examples/boot/systemd-boot/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	image, err := h.builder.Slot(t.Context(), abdisk.SlotConfig{
		Kind: abdisk.Small, Version: fmt.Sprint("uki-", version), Files: map[string]string{"etc/updater/config.toml": string(config)},
		Scripts: map[string]string{"usr/lib/demo/mark-good": ukiMarkGood, "usr/lib/demo/act": ukiAct},
	})
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := h.kernel.Initrd()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(h.dir, fmt.Sprint(version))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "initrd"), initrd)
	r = ukiRelease{image, filepath.Join(dir, "a.efi"), filepath.Join(dir, "b.efi")}
	for _, s := range []struct{ slot, label, out string }{{"A", "rootfs_a", r.a}, {"B", "rootfs_b", r.b}} {
		cmdline := fmt.Sprintf("console=ttyS0 panic=10 ro updater.slot=%s root=PARTLABEL=%s demo.uki=%d", s.slot, s.label, version)
		run(t, "../../scripts/uki.sh", "amd64", h.kernel.Image, filepath.Join(dir, "initrd"), cmdline, s.out)
	}
	return r
}

// ukiStick is a stick with a signed release.
func (h *helper) ukiStick(t *testing.T, version int, r ukiRelease) string {
	t.Helper()
	flags := []string{"--product", "acme-gw", "--version", fmt.Sprint(version), "--rollback-index", fmt.Sprint(version)}
	name := fmt.Sprint("release-", version)
	files, err := h.builder.Release(t.Context(), filepath.Join(h.dir, name), flags, "rootfs="+r.rootfs, "uki@A="+r.a, "uki@B="+r.b)
	if err != nil {
		t.Fatal(err)
	}
	return h.stick(t, name, files)
}
