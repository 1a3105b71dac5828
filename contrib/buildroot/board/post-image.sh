#!/bin/sh
# BR2_ROOTFS_POST_IMAGE_SCRIPT: makes disk.img, which boots slot A, and a signed release of the same image in release/. Buildroot calls it with
# the folder of the images; genimage, grub-editenv and updater are those of the host folder.
#
#   UPDATER_CMDLINE   more of the kernel's command line, such as console=ttyS0
#   and the variables of contrib/release.sh: UPDATER_GPG_KEY, UPDATER_KEYRING, UPDATER_CREATE, UPDATER_DELTA_FROM, GNUPGHOME
set -eu
images=${1:?Buildroot gives the folder of the images}
here=$(realpath "$(dirname "$0")") contrib=$(realpath "$(dirname "$0")/../..")
export PATH="${HOST_DIR:+$HOST_DIR/bin:$HOST_DIR/sbin:}$PATH"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The boot loader's files and its first state: slot B is not bootable before an update has filled it.
boot=$images/updater-boot
mkdir -p "$boot"
sed "s|panic=10|& rootwait ${UPDATER_CMDLINE:-}|" "$contrib/../examples/boot/grub/grub.cfg" >"$boot/grub.cfg"
cp "$contrib/../examples/boot/grub/tries.cfg" "$boot"
rm -f "$boot/grubenv"
grub-editenv "$boot/grubenv" create
grub-editenv "$boot/grubenv" set ORDER="A B" A_LEFT=g B_LEFT=0
rm -f "$images/data.ext4"
mke2fs -q -t ext4 -L data "$images/data.ext4" 64M
mkdir "$tmp/root"
genimage --rootpath "$tmp/root" --tmppath "$tmp/tmp" --inputpath "$images" --outputpath "$images" --config "$here/genimage.cfg"

export UPDATER="${UPDATER:-updater}" UPDATER_CREATE="${UPDATER_CREATE:---product acme-gw --version 0 --rollback-index 17}"
rm -rf "$images/release"
"$contrib/release.sh" "$images/release" rootfs="$images/rootfs.ext4"
