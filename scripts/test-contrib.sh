#!/bin/bash
# Tests contrib/: runs the script that makes updates on small images, checks shell files with shellcheck, and parses the files
# of the build systems with their own parsers: mkosi if it is installed, Yocto if UPDATER_BITBAKE and UPDATER_OECORE name source
# trees, Buildroot if UPDATER_BUILDROOT does. It builds nothing with them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
die() { echo "test-contrib: $*" >&2; exit 1; }
ok() { echo "ok      $*"; }
skip() { echo "NOT TESTED: $*"; }
top=$PWD work=$(mktemp -d)
export GNUPGHOME=$work/g
trap 'gpgconf --kill all 2>/dev/null || true; rm -rf "$work"' EXIT

# Every shell file, by its first line.
mapfile -t shells < <(git ls-files -co --exclude-standard contrib scripts examples | xargs grep -lE '^#!/bin/(ba)?sh' --)
for f in "${shells[@]}"; do
	case $(head -1 "$f") in *bash*) bash -n "$f" ;; *) sh -n "$f" ;; esac
done
if command -v shellcheck >/dev/null; then
	shellcheck -S warning "${shells[@]}"
	ok "shellcheck: ${#shells[@]} files"
else
	skip "shellcheck is not installed"
fi

# The script that makes updates, in both forms, signed and not; by hand and as Buildroot calls it.
mkdir -m 700 "$work/g"
gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never 2>/dev/null
gpg -q --batch --passphrase '' --quick-generate-key other@example.com ed25519 sign never 2>/dev/null
gpg -q --armor --export release@example.com >"$work/release.asc"
gpg -q --armor --export other@example.com >"$work/other.asc"
truncate -s 24M "$work/rootfs.ext2"
mke2fs -q -t ext4 -d docs "$work/rootfs.ext2"
ln -s rootfs.ext2 "$work/rootfs.ext4"
export UPDATER=$top/bin/updater SOURCE_DATE_EPOCH=1700000000 UPDATER_CREATE="--product demo --version 1 --rollback-index 3"
UPDATER_KEYRING=$work/release.asc UPDATER_GPG_KEY=release@example.com contrib/buildroot/board/post-image.sh "$work" >/dev/null 2>&1
mkdir "$work/again" "$work/plain" "$work/wrong"
UPDATER_KEYRING=$work/release.asc UPDATER_GPG_KEY=release@example.com contrib/release-image.sh "$work/rootfs.ext4" "$work/again" >/dev/null 2>&1
cmp "$work/rootfs.ext4.bmap" "$work/again/rootfs.ext4.bmap"
cmp "$work/rootfs.ext4.zst" "$work/again/rootfs.ext4.zst"
"$UPDATER" verify --keyring "$work/release.asc" "$work/rootfs.ext4.zst" >/dev/null 2>&1 || die "the update is not accepted"
grep -q '<RollbackIndex> *3' "$work/rootfs.ext4.bmap" || die "the options of the map are not in it"
zstd -dcq "$work/rootfs.ext4.zst" | cmp - "$work/rootfs.ext2"
UPDATER_PACK=0 UPDATER_GPG_KEY='' contrib/release-image.sh "$work/rootfs.ext4" "$work/plain" >/dev/null 2>&1
[ ! -e "$work/plain/rootfs.ext4.bmap.asc" ] || die "a signature without a key"
zstd -dcq "$work/plain/rootfs.ext4.zst" | cmp - "$work/rootfs.ext2"
# A key that the devices do not trust is an error, and no file is left.
if UPDATER_KEYRING=$work/other.asc UPDATER_GPG_KEY=release@example.com contrib/release-image.sh "$work/rootfs.ext4" "$work/wrong" >/dev/null 2>&1; then
	die "an update that no device would take is no error"
fi
[ -z "$(ls -A "$work/wrong")" ] || die "a failed run leaves files: $(ls -A "$work/wrong")"
if UPDATER_GPG_KEY=release@example.com contrib/release-image.sh "$work/rootfs.ext4" "$work/wrong" >/dev/null 2>&1; then
	die "signing without a keyring to check with is no error"
fi
ok "contrib/release-image.sh: packed and plain, signed and unsigned, the same bytes twice, a wrong key"

# The files of the build systems.
if command -v mkosi >/dev/null; then
	cp -r contrib/mkosi "$work/mkosi"
	mkdir -p "$work/mkosi/mkosi.output/extra"
	(cd "$work/mkosi" && mkosi summary) >"$work/summary" 2>&1 || { cat "$work/summary" >&2; die "mkosi does not understand contrib/mkosi"; }
	grep -q 'Output Format: plain_squashfs' "$work/summary" || die "mkosi reads another format than plain_squashfs"
	ok "mkosi: summary"
else
	skip "mkosi is not installed"
fi

if [ -n "${UPDATER_BUILDROOT:-}" ]; then
	br() { make -s -C "$UPDATER_BUILDROOT" BR2_EXTERNAL="$top/contrib/buildroot" O="$work/buildroot" "$@"; }
	br updater_qemu_x86_64_defconfig >/dev/null 2>"$work/err" || { cat "$work/err" >&2; die "Buildroot does not understand contrib/buildroot"; }
	grep -q '^BR2_PACKAGE_UPDATER_INITRAMFS=y' "$work/buildroot/.config" || die "Buildroot dropped an option of the package"
	br printvars VARS='UPDATER_BUILD_CMDS UPDATER_DEPENDENCIES' | grep -q 'UPDATER_DEPENDENCIES=host-go host-updater linux' || die "Buildroot does not see the package"
	ok "Buildroot: defconfig and package"
else
	skip "contrib/buildroot: UPDATER_BUILDROOT names no Buildroot"
fi

if [ -n "${UPDATER_BITBAKE:-}" ] && [ -n "${UPDATER_OECORE:-}" ]; then
	scripts/parse-yocto.sh "$UPDATER_BITBAKE" "$UPDATER_OECORE" || die "BitBake does not understand contrib/yocto/meta-updater"
	ok "BitBake: recipes, class and machine of meta-updater"
else
	skip "contrib/yocto: UPDATER_BITBAKE and UPDATER_OECORE name no BitBake and OE-core"
fi
