#!/bin/bash
# Makes two devices from two empty card images with examples/factory/minimal.toml: keys, images, plan, run, records. No root, no device.
# Run: examples/factory/minimal.sh [--keep DIR] [--disk /dev/sdX]... [UPDATER]
#      --keep DIR     DIR, which must not exist, keeps everything to go on with
#      --disk DEVICE  writes this disk instead of the images; it needs root, and everything on the disk is lost
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
keep='' disks=()
while [ $# -gt 1 ]; do
	case $1 in
	--keep) keep=$2 ;;
	--disk) disks+=("$2") ;;
	*) break ;;
	esac
	shift 2
done
PATH=$PATH:/usr/sbin:/sbin # where a user's path lacks sgdisk and mkfs.vfat
missing=
for need in sgdisk:gdisk mkfs.vfat:dosfstools mcopy:mtools mke2fs:e2fsprogs grub-editenv:grub-common gpg:gnupg openssl:openssl zstd:zstd; do
	command -v "${need%:*}" >/dev/null || missing+=" ${need#*:}"
done
[ -z "$missing" ] || { echo "missing; on Debian: apt-get install$missing" >&2; exit 1; }
updater=$(command -v "${1:-bin/updater}") || { echo "${1:-bin/updater} is not there: run make build first" >&2; exit 1; }
case $updater in /*) ;; *) updater=$PWD/$updater ;; esac
umask 022
if [ -n "$keep" ]; then
	mkdir "$keep"; work=$(cd "$keep" && pwd)
else
	work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
fi
cd "$work"
step() { echo; echo "\$ ${1##*/} ${*:2}"; "$@"; }

# 1. The keys. GnuPG's signs the images, on the build machine; station.pem signs the records, at the station.
export GNUPGHOME=$work/gnupg; mkdir -m 700 gnupg
gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never 2>gpg.log || { cat gpg.log >&2; exit 1; }
gpg -q --armor --export release@example.com >release.asc
(umask 077; openssl genpkey -quiet -algorithm ed25519 -out station.pem)
openssl pkey -in station.pem -pubout -out station.pub

# 2. The images: a boot partition with GRUB's environment block, and a root file system. Each gets a bmap and a signature.
truncate -s 8M esp.img; mkfs.vfat esp.img >/dev/null
grub-editenv grubenv create
grub-editenv grubenv set ORDER="A B" A_OK=0 A_TRY=0 B_OK=0 B_TRY=0
mmd -i esp.img ::/grub; mcopy -i esp.img grubenv ::/grub/
mkdir root; echo "hello" >root/hello; mke2fs -q -t ext4 -d root rootfs.img 24M
for image in esp.img rootfs.img; do
	step "$updater" bmap create -o "$image.bmap" "$image"
	gpg -q --batch --armor --detach-sign "$image.bmap"
	zstd -q --rm "$image"
done
gpgconf --kill all 2>/dev/null || true

# 3. The station: the plan, the device's configuration, serials, the programs of the steps.
cp "$here/minimal.toml" plan.toml
cat >device.toml <<'C'
product = "demo"
keyring = ["release.asc"]
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"
tries = 1
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
C
printf '%s\n' serial DEMO-0001 DEMO-0002 DEMO-0003 >serials.csv
mkdir steps labels otp
cat >steps/test <<'S'
#!/bin/sh -e
# The functional test: the table is sound, and the identity partition holds the serial. A real one talks to the board.
sgdisk -v "$1" | grep -q 'No problems found'
first=$(sgdisk -i 4 "$1" | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
found=$(mtype -i "$1@@$((first * 512))" ::/serial)
echo "serial on the disk: $found"
[ "$found" = "$2" ]
S
cat >steps/fuse <<S
#!/bin/sh -e
# Blows a fuse once: a run may be repeated, so a fuse that is already blown is compared. Here a file is the fuse.
fuse=$work/otp/\$(basename "\$1")
[ -e "\$fuse" ] || echo "\$2" >"\$fuse"
[ "\$(cat "\$fuse")" = "\$2" ] || { echo "the fuse holds \$(cat "\$fuse")"; exit 1; }
S
cat >steps/label <<S
#!/bin/sh -e
# The label, in the printer's language; a real one ends with: | lp -d labels -o raw
printf '^XA^FO50,50^A0N,40^FD%s^FS^XZ\n' "\$1" >"$work/labels/\$1.zpl"
echo "printed \$1.zpl"
S
chmod 755 steps/*

# 4. The run: every target gets its verdict and its record.
if [ ${#disks[@]} = 0 ]; then
	truncate -s 128M card1.img card2.img; disks=(card1.img card2.img)
fi
step "$updater" provision --plan plan.toml --operator eve --plain "${disks[@]/#/--target=}"

# 5. The records: anybody with the station's public key can verify them.
step "$updater" provision records verify --spool spool --key station.pub
step "$updater" provision records list --spool spool --key station.pub
echo; echo "\$ grep -o ... spool/00000001.json     # what the functional test printed"
grep -o '{"name":"test"[^}]*}' spool/00000001.json
echo; (cd labels && echo labels: *)

# 6. A device is not written again by mistake: both are refused now.
if step "$updater" provision --plan plan.toml --operator eve --plain "${disks[@]/#/--target=}"; then
	echo "a provisioned device was written again" >&2; exit 1
fi
