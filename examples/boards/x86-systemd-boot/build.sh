#!/bin/bash
# An x86 device with systemd-boot: a slot is a root file system and a unified kernel image on the ESP, which a release replaces together. See ../x86.sh.
# With SECURE_BOOT=1 every EFI program is signed with keys of the product, and the first boot enrols these in a firmware that is in setup mode.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../x86.sh
. "$(dirname "$0")/../x86.sh"

# keys makes the keys of Secure Boot: PK owns the machine, KEK may change db, db signs programs. The firmware enrols the .auth files.
keys() {
	local k=$OUT/secureboot name by
	[ ! -e "$k/db.auth" ] || return 0
	mkdir -p "$k"
	for name in PK KEK db; do
		openssl req -quiet -x509 -newkey rsa:2048 -noenc -sha256 -days 7300 -subj "/CN=acme-gw $name" -keyout "$k/$name.key" -out "$k/$name.crt"
		cert-to-efi-sig-list -g 5b2c6a34-0d6f-4a53-9f0e-6d7c1c4f0a11 "$k/$name.crt" "$k/$name.esl"
	done
	for name in PK:PK KEK:PK db:KEK; do
		by=$k/${name#*:} name=${name%:*}
		sign-efi-sig-list -k "$by.key" -c "$by.crt" "$name" "$k/$name.esl" "$k/$name.auth" >/dev/null
	done
}

# efi_sign FILE [AS] signs an EFI program of a board with Secure Boot, and copies it elsewhere.
efi_sign() {
	if [ -n "${SECURE_BOOT:-}" ]; then
		sbsign --key "$OUT/secureboot/db.key" --cert "$OUT/secureboot/db.crt" --output "$2" "$1" 2>/dev/null
	elif [ "$1" != "$2" ]; then
		cp "$1" "$2"
	fi
}

# uki ID INITRAMFS CMDLINE OUT. systemd-boot sorts by ID: the recovery's ID sorts after that of the slots, so that it starts when no slot is left.
uki() {
	ID=$1 "$top/scripts/uki.sh" amd64 "$base/boot/vmlinuz" "$2" "$3 $args" "$4"
	efi_sign "$4" "$4"
}

debian
key
[ -z "${SECURE_BOOT:-}" ] || keys
config systemd-boot >"$OUT/config.toml"
rootfs "$OUT/$version/rootfs.img"
uki acme-gw "$base/boot/initrd.img" "updater.slot=A root=PARTLABEL=rootfs_a ro" "$OUT/$version/a.efi"
uki acme-gw "$base/boot/initrd.img" "updater.slot=B root=PARTLABEL=rootfs_b ro" "$OUT/$version/b.efi"
release rootfs="$OUT/$version/rootfs.img" uki@A="$OUT/$version/a.efi" uki@B="$OUT/$version/b.efi"
[ "$version" = 1 ] || exit 0

# The ESP: the loader; slot A's image as template and as the entry that was marked good, nothing of slot B; the recovery.
esp=$OUT/esp
rm -rf "$esp"
mkdir -p "$esp"/EFI/BOOT "$esp"/EFI/Linux "$esp"/EFI/updater "$esp"/loader
efi_sign /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$esp/EFI/BOOT/BOOTX64.EFI"
cp "$top/examples/boot/systemd-boot/loader.conf" "$esp/loader"
cp "$OUT/1/a.efi" "$esp/EFI/updater/A.efi"
cp "$OUT/1/a.efi" "$esp/EFI/Linux/updater-1-A.efi"
recovery "$OUT/initramfs"
uki recovery "$OUT/initramfs" updater.mode=recover "$esp/EFI/Linux/recovery.efi"
if [ -n "${SECURE_BOOT:-}" ]; then
	echo 'secure-boot-enroll force' >>"$esp/loader/loader.conf"
	mkdir -p "$esp/loader/keys/auto"
	cp "$OUT"/secureboot/*.auth "$esp/loader/keys/auto"
fi

disk "$OUT/disk.img" 256 "$esp" "$OUT/1/rootfs.img"
