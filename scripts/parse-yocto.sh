#!/bin/bash
# Parses contrib/yocto/meta-updater with BitBake and OE-core's classes, and checks the commands that an image would run. It
# builds, fetches and runs nothing. Arguments: the source trees of BitBake and OE-core, of the same release. OE-core's host
# requirements apply.
set -euo pipefail
cd "$(dirname "$0")/.."
bitbake=$(realpath "$1") oecore=$(realpath "$2") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/conf" "$work/source"
# A copy of the tree, because BitBake does not run as root and git does not read repositories of other users.
git ls-files -co --exclude-standard -z | tar --null -T - -c | tar -xC "$work/source"
git -C "$work/source" init -q -b main
git -C "$work/source" add -A
git -C "$work/source" -c user.name=x -c user.email=x@example.com commit -qm x
cat >"$work/conf/bblayers.conf" <<C
LCONF_VERSION = "7"
BBPATH = "\${TOPDIR}"
BBFILES ?= ""
BBLAYERS = "$oecore/meta $work/source/contrib/yocto/meta-updater"
# Of OE-core's recipes only the images: parsing all of them takes minutes and does not test this layer.
BBMASK = "/meta/recipes-(?!core/images)"
C
cat >"$work/conf/local.conf" <<C
CONF_VERSION = "2"
MACHINE = "updater-qemux86-64"
BB_NO_NETWORK = "1"
UPDATER_IMAGE_TYPES = "ext4 squashfs"
UPDATER_ROLLBACK_INDEX = "17"
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
bb -p >"$work/log" 2>&1 || { grep -v '^Parsing' "$work/log" >&2; exit 1; }
! grep -E 'WARNING.*meta-updater' "$work/log" >&2
bb -b "$oecore/meta/recipes-core/images/core-image-minimal.bb" -e >"$work/env" 2>&1 || { tail -30 "$work/env" >&2; exit 1; }
for want in 'IMAGE_FSTYPES=".*ext4.*squashfs' '^UPDATER_CREATE=.*--rollback-index 17' '^do_updater_release()' 'WKS_FILE="updater-ab.wks"'; do
	grep -qE "$want" "$work/env" || { echo "parse-yocto: nothing in the image's environment is like $want" >&2; exit 1; }
done
for recipe in updater/updater_git updater/updater-config images/updater-initramfs; do
	bb -b "$work/source/contrib/yocto/meta-updater/recipes-updater/$recipe.bb" -e >"$work/env" 2>&1 || { tail -30 "$work/env" >&2; exit 1; }
done
