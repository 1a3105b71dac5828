#!/bin/bash
# Installs a signed image into slot B of a disk image file: no root, no device, no virtual machine.
# Run: examples/try.sh [--keep DIR] [UPDATER]      # DIR, which must not exist, keeps the device, the keys and the image to go on with
set -euo pipefail
keep=
[ "${1:-}" != --keep ] || { keep=${2:?--keep needs a folder}; shift 2; }
PATH=$PATH:/usr/sbin:/sbin # where a user's path lacks sgdisk and mkfs.vfat
missing=
for need in sgdisk:gdisk mkfs.vfat:dosfstools mcopy:mtools grub-editenv:grub-common gpg:gnupg zstd:zstd; do
	command -v "${need%:*}" >/dev/null || missing+=" ${need#*:}"
done
[ -z "$missing" ] || { echo "missing; on Debian: apt-get install$missing" >&2; exit 1; }
updater=$(command -v "${1:-bin/updater}") || { echo "${1:-bin/updater} is not there: run make build first" >&2; exit 1; }
case $updater in /*) ;; *) updater=$PWD/$updater ;; esac
if [ -n "$keep" ]; then
	mkdir "$keep"; work=$(cd "$keep" && pwd)
else
	work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
fi
cd "$work"
step() { echo; echo "\$ ${1##*/} ${*:2}"; "$@"; }

# The device: a disk with GRUB's environment block on a FAT partition, and two slots.
truncate -s 80M disk.img
sgdisk -n1:2048:+8M -t1:ef00 -c1:esp -n2:0:+32M -c2:rootfs_a -n3:0:+32M -c3:rootfs_b disk.img >/dev/null
truncate -s 8M esp.img; mkfs.vfat esp.img >/dev/null
grub-editenv grubenv create
grub-editenv grubenv set ORDER="A B" A_OK=1 A_TRY=0 B_OK=0 B_TRY=0
mmd -i esp.img ::/grub; mcopy -i esp.img grubenv ::/grub/
dd if=esp.img of=disk.img bs=1M seek=1 conv=notrunc status=none
cat >config.toml <<'C'
product = "demo"
keyring = ["release.asc"]
[disk]
path = "disk.img"
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"
tries = 1
booted = "A"
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
C

# The update: an image with holes, its bmap, a signature.
export GNUPGHOME=$work/gnupg; mkdir -m 700 gnupg
gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never 2>gpg.log || { cat gpg.log >&2; exit 1; }
gpg -q --armor --export release@example.com >release.asc
truncate -s 30M image.img
for at in 0 9 20; do head -c 3M /dev/urandom | dd of=image.img bs=1M seek=$at conv=notrunc status=none; done
step "$updater" bmap create -o image.img.bmap image.img
step gpg -q --batch --armor --detach-sign image.img.bmap
step zstd -q image.img
gpgconf --kill all 2>/dev/null || true

step "$updater" status --config config.toml
step "$updater" install --config config.toml image.img.zst
step "$updater" status --config config.toml
rm esp.img grubenv

[ -z "$keep" ] || cat <<T

The device is in $work; slot A runs by booted = "A" of its config.toml. Go on there:

    cd $work
    export GNUPGHOME=\$PWD/gnupg PATH=\$PATH:$(dirname "$updater")
    updater mark good --config config.toml --booted B      # as the new system does after its first boot
    updater status --config config.toml --booted B
    updater doctor --config config.toml --booted B
T
