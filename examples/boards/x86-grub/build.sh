#!/bin/bash
# An x86 device with GRUB: a slot is one partition, whose root file system has the kernel and its initramfs in /boot. See ../x86.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../x86.sh
. "$(dirname "$0")/../x86.sh"

debian
key
config grub >"$OUT/config.toml"
rootfs "$OUT/$version/rootfs.img"
release rootfs="$OUT/$version/rootfs.img"
[ "$version" = 1 ] || exit 0

# The ESP: GRUB as one program, which looks for its configuration on the file system with the label ESP; the choice between the slots, with slot A
# good and slot B empty; the recovery, which starts when no slot is left.
esp=$OUT/esp
rm -rf "$esp"
mkdir -p "$esp"/EFI/BOOT "$esp"/grub "$esp"/recovery
cat >"$OUT/early.cfg" <<'T'
search --no-floppy --set=root --label ESP
configfile ($root)/grub/grub.cfg
T
grub-mkimage -O x86_64-efi -p /grub -c "$OUT/early.cfg" -o "$esp/EFI/BOOT/BOOTX64.EFI" \
	part_gpt fat ext2 normal configfile loadenv test echo search search_label regexp linux reboot
cp "$top/examples/boot/grub/tries.cfg" "$esp/grub"
sed "s/panic=10/$args/" "$top/examples/boot/grub/grub.cfg" >"$esp/grub/grub.cfg"
grub-editenv "$esp/grub/grubenv" create
grub-editenv "$esp/grub/grubenv" set ORDER="A B" A_LEFT=g B_LEFT=0
cp "$base/boot/vmlinuz" "$esp/recovery"
recovery "$esp/recovery/initramfs"

disk "$OUT/disk.img" 128 "$esp" "$OUT/1/rootfs.img"
