#!/bin/bash
# uki.sh ARCH KERNEL INITRAMFS CMDLINE OUT makes a unified kernel image with the sections that systemd-stub(7) reads.
set -euo pipefail
[ $# = 5 ] && [ -f "$2" ] || { echo "uki: KERNEL=IMAGE is missing (usage: uki.sh ARCH KERNEL INITRAMFS CMDLINE OUT)" >&2; exit 2; }
case $1 in
amd64) efi=x64 tool=objcopy ;;
arm64) efi=aa64 tool=aarch64-linux-gnu-objcopy ;;
*) echo "uki: no EFI stub for $1; expected amd64 or arm64" >&2; exit 2 ;;
esac
command -v "$tool" >/dev/null || tool=llvm-objcopy
stub=${STUB:-/usr/lib/systemd/boot/efi/linux$efi.efi.stub}
[ -f "$stub" ] || { echo "uki: $stub is missing; install systemd-boot-efi" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s' "$4" >"$work/cmdline"
id=${ID:-updater} # by which systemd-boot sorts
printf 'ID=%s\nNAME=%s\n' "$id" "$id" >"$work/osrel"
# After the stub's last section, each on its own page.
next=0
while read -r size vma; do
	end=$((16#$size + 16#$vma))
	[ $end -le $next ] || next=$end
done < <(objdump -h "$stub" | awk 'NF == 7 && $1 ~ /^[0-9]+$/ { print $3, $4 }')
args=()
add() { # section, file
	next=$(((next + 4095) / 4096 * 4096))
	args+=(--add-section "$1=$2" --change-section-vma "$1=$next")
	next=$((next + $(stat -Lc %s "$2")))
}
add .osrel "$work/osrel"
add .cmdline "$work/cmdline"
add .initrd "$3"
add .linux "$2"
"$tool" "${args[@]}" "$stub" "$5"
