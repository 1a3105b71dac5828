#!/bin/bash
# Builds U-Boot for QEMU's x86 machine from Debian's source package, with a redundant raw environment, boot counting and Android's
# slot choice (test/loaders/files/uboot.config). Usage: scripts/uboot-rom.sh FOLDER; it writes FOLDER/u-boot.rom and takes
# 2 to 5 minutes the first time. It does not change apt's lists and sources.
set -euo pipefail
fragment=$(realpath "$(dirname "$0")/../test/loaders/files/uboot.config")
mkdir -p "$1"
cd "$1"
stamp=$(sha256sum <"$fragment")
[ -e u-boot.rom ] && [ "$(cat stamp 2>/dev/null)" = "$stamp" ] && exit 0
if ! ls -d u-boot-*/ >/dev/null 2>&1; then
	mkdir -p sources lists/partial
	. /etc/os-release
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $VERSION_CODENAME main" >sources/src.list
	apt=(-q -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$PWD/sources" -o "Dir::State::Lists=$PWD/lists" -o APT::Sandbox::User=root)
	apt-get "${apt[@]}" update
	apt-get "${apt[@]}" --only-source source u-boot
fi
src=$(realpath "$(ls -d u-boot-*/ | tail -1)")
mkdir -p out
make -C "$src" O="$PWD/out" qemu-x86_defconfig
"$src/scripts/kconfig/merge_config.sh" -m -O "$PWD/out" out/.config "$fragment"
make -C "$src" O="$PWD/out" olddefconfig
make -C "$src" O="$PWD/out" -j"$(nproc)"
cp out/u-boot.rom u-boot.rom
echo "$stamp" >stamp
