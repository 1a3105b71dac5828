package install_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"updater/internal/rig"
)

// A post_install hook finds the new slot mounted read-only, also one whose journal needs a replay, and the slot keeps its signed content: on
// a disk image file, and on a block device whose partition is held.
func TestHookFindsSlotMounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, tool := range []string{"mkfs.ext4", "losetup", "mount", "dumpe2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	r := rig.New(t)
	r.Sh(`l=$(losetup -f --show disk.img) || exit 0; losetup -d $l; touch loops`)
	if _, err := os.Stat(r.Path("loops")); err != nil {
		t.Skip("no loop devices")
	}
	r.Sh(`mkdir tree mnt; mkdir tree/etc; echo ID=new >tree/etc/os-release
		rm image.img*; truncate -s 8M live.img; mkfs.ext4 -q -O ^metadata_csum -b 1024 -J size=1 -d tree live.img
		mount -o loop live.img mnt; echo late >mnt/etc/late; sync -f mnt; cp --sparse=always live.img image.img; umount mnt
		dumpe2fs -h image.img 2>/dev/null | grep -q needs_recovery
		updater bmap create -o image.img.bmap image.img`)
	r.Sign("image.img.bmap", "release")
	r.Write("hook", []byte("#!/bin/sh\ncat $UPDATER_MOUNT/rootfs/etc/os-release\ngrep -c \"$UPDATER_MOUNT/rootfs .*ro,\" /proc/mounts\n! echo x 2>/dev/null >$UPDATER_MOUNT/rootfs/x\n"))
	r.Sh("chmod 755 hook")
	slotB := func() []byte {
		disk := r.Read("disk.img")
		return disk[rig.SlotOffset("grub", "B"):][:8<<20]
	}
	for _, where := range []string{"file", "block device"} {
		loop := ""
		r.Sh("cp disk.orig disk.img")
		r.Configure("", "[hooks]\npost_install = \"hook\"\nmount = true\n")
		if where == "block device" {
			loop = strings.TrimSpace(r.Sh("losetup -P -f --show disk.img"))
			t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
			r.Sh(`sed -i "s#disk.img#$0#" config.toml`, loop)
		}
		out := r.Install(0, "slot B boots next", "image.img")
		if !strings.Contains(out, "post-install: ID=new") || !strings.Contains(out, "post-install: 1") {
			t.Errorf("%s: the hook printed %s", where, out)
		}
		r.Sh("sync")
		if !bytes.Equal(slotB(), r.Read("image.img")) {
			t.Errorf("%s: the slot is not what was signed", where)
		}
		r.Sh("! grep updater/slot /proc/mounts; ! test -e /run/updater/slot-B")
		if loop != "" {
			r.Sh("losetup -d $0", loop)
		}
	}
	// A slot that holds no file system has no folder; the hook is called all the same.
	r.Sh(`cp disk.orig disk.img; sed -i 's#path = .*#path = "disk.img"#' config.toml; head -c 1M /dev/urandom >image.img; updater bmap create -o image.img.bmap image.img; printf '#!/bin/sh\nls $UPDATER_MOUNT | wc -l\n' >hook`)
	r.Sign("image.img.bmap", "release")
	r.Install(0, "post-install: 0", "image.img")
}
