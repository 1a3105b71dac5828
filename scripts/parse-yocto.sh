#!/bin/bash
# Parses contrib/yocto/meta-updater with BitBake and OE-core's classes for both example machines, and checks what an image would run. It builds,
# fetches and runs nothing. Arguments: the source trees of BitBake and OE-core, of the same release. OE-core's host requirements apply.
set -euo pipefail
cd "$(dirname "$0")/.."
bitbake=$(realpath "$1") oecore=$(realpath "$2") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/conf" "$work/source"
# A copy of the tree, because BitBake does not run as root and git does not read repositories of other users.
git ls-files -co --exclude-standard -z | tar --null -T - -c --ignore-failed-read 2>/dev/null | tar -xC "$work/source"
git -C "$work/source" init -q -b main
git -C "$work/source" add -A
git -C "$work/source" -c user.name=x -c user.email=x@example.com commit -qm x
cat >"$work/conf/bblayers.conf" <<C
LCONF_VERSION = "7"
BBPATH = "\${TOPDIR}"
BBFILES ?= ""
BBLAYERS = "$oecore/meta $work/source/contrib/yocto/meta-updater"
# Only the images and boot loaders of OE-core's recipes: parsing all of them takes minutes and does not test this layer.
BBMASK = "/meta/recipes-(?!core/images|bsp/(u-boot|grub))"
C
as=(env)
if [ "$(id -u)" = 0 ]; then
	chown -R nobody "$work"
	chmod 755 "$work"
	as=(setpriv --reuid=nobody --regid=nogroup --clear-groups env)
fi
bb() {
	(cd "$work" && "${as[@]}" -i HOME="$work" PATH="$bitbake/bin:$oecore/scripts:/usr/bin:/bin:/usr/sbin:/sbin" LC_ALL=en_US.UTF-8 TERM=dumb BUILDDIR="$work" \
		bitbake "$@")
}
# The environment of a recipe's file, in $work/env, and patterns that must be in it.
environment() {
	bb -b "$1" -e >"$work/env" 2>&1 || { tail -30 "$work/env" >&2; exit 1; }
	has "$@"
}
has() {
	local recipe=$1
	shift
	for want; do
		grep -qE "$want" "$work/env" || { echo "parse-yocto: $machine: nothing in the environment of ${recipe##*/} is like $want" >&2; exit 1; }
	done
}
layer=$work/source/contrib/yocto/meta-updater image=$oecore/meta/recipes-core/images/core-image-minimal.bb
for machine in updater-qemux86-64 updater-qemuarm64; do
	cat >"$work/conf/local.conf" <<C
CONF_VERSION = "2"
MACHINE = "$machine"
BB_NO_NETWORK = "1"
UPDATER_ROLLBACK_INDEX = "17"
UPDATER_DELTA_FROM = "/srv/1.0"
C
	bb -p >"$work/log" 2>&1 || { grep -v '^Parsing' "$work/log" >&2; exit 1; }
	if grep -E 'WARNING.*(meta-updater|updater)' "$work/log" >&2; then exit 1; fi
	environment "$image" '^IMAGE_FSTYPES=".*wic.*ext4' '^UPDATER_OPTIONS=.*--rollback-index 17' '^do_updater_release\(\)' 'UPDATER_DELTA_FROM="/srv/1.0"' \
		'^WKS_FULL_PATH=".*/updater-(grub|uboot)\.wks"' '^IMAGE_BOOT_FILES=".*recovery/initramfs'
	environment "$layer/recipes-updater/updater/updater_git.bb" '^SRC_URI=".*u-root/@v/v[0-9.]*zip' '^LICENSE="Apache-2.0 (&|AND) ' '^SRCREV="[0-9a-f]{40}"' '^DEPENDS=".*updater-go-native'
	for recipe in recipes-updater/updater/updater-config recipes-updater/images/updater-initramfs recipes-bsp/updater-boot/updater-{grub,uboot}; do
		environment "$layer/$recipe.bb"
	done
done
# Only a target recipe gets the appended lines; its compiler is masked, which is an error after its environment.
bb -e u-boot >"$work/env" 2>&1 || true
has u-boot '^SRC_URI=.*file://updater-ab.cfg' '>>.*/board/emulation/qemu-arm/updater.env|>>\$board/updater.env' 'CONFIG_ENV_FAT_INTERFACE='
