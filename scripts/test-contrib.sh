#!/bin/bash
# Tests contrib/: runs the scripts that make updates and releases on small images, makes Buildroot's disk with genimage, runs shellcheck on
# every shell file, and parses the files of the build systems with their own parsers: mkosi and kas if they are installed, Yocto if
# UPDATER_BITBAKE and UPDATER_OECORE name source trees, Buildroot if UPDATER_BUILDROOT does. It builds nothing with them.
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
	shellcheck -x -S warning "${shells[@]}"
	ok "shellcheck: ${#shells[@]} files"
else
	skip "shellcheck is not installed"
fi

# The script that makes updates, in both forms, signed and unsigned.
mkdir -m 700 "$work/g"
gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never 2>/dev/null
gpg -q --batch --passphrase '' --quick-generate-key other@example.com ed25519 sign never 2>/dev/null
gpg -q --armor --export release@example.com >"$work/release.asc"
gpg -q --armor --export other@example.com >"$work/other.asc"
truncate -s 24M "$work/rootfs.ext2"
mke2fs -q -t ext4 -d docs "$work/rootfs.ext2"
ln -s rootfs.ext2 "$work/rootfs.ext4"
export UPDATER=$top/bin/updater SOURCE_DATE_EPOCH=1700000000 UPDATER_CREATE="--product demo --version 1 --rollback-index 3"
UPDATER_KEYRING=$work/release.asc UPDATER_GPG_KEY=release@example.com contrib/release-image.sh "$work/rootfs.ext4" >/dev/null 2>&1
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
	die "release-image.sh accepts an update that no device would accept"
fi
[ -z "$(ls -A "$work/wrong")" ] || die "a failed run leaves files: $(ls -A "$work/wrong")"
if UPDATER_GPG_KEY=release@example.com contrib/release-image.sh "$work/rootfs.ext4" "$work/wrong" >/dev/null 2>&1; then
	die "release-image.sh signs without a keyring to check with"
fi
ok "contrib/release-image.sh: packed and plain, signed and unsigned, the same bytes twice, a wrong key"

# The script that makes releases: two of them, the same bytes twice, and the delta between them; a wrong key.
release() {
	local out=$1 image=$2
	UPDATER_KEYRING=$work/release.asc UPDATER_GPG_KEY=release@example.com contrib/release.sh "$out" "rootfs=$image" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "contrib/release.sh"; }
}
mkdir "$work/new"
cp "$work/rootfs.ext2" "$work/new/rootfs.ext4"
debugfs -w -R "write $0 new" "$work/new/rootfs.ext4" >/dev/null 2>&1
release "$work/1.0" "$work/rootfs.ext4"
release "$work/1.0-again" "$work/rootfs.ext4"
UPDATER_DELTA_FROM=$work/1.0 release "$work/2.0" "$work/new/rootfs.ext4"
for file in release.toml rootfs.ext4.bmap rootfs.ext4.zst; do cmp "$work/1.0/$file" "$work/1.0-again/$file"; done
"$UPDATER" release verify --keyring "$work/release.asc" "$work/2.0/release.toml" >/dev/null 2>&1 || die "the release is not accepted"
"$UPDATER" delta info "$work"/2.0/rootfs.ext4.zst.*.delta >/dev/null || die "no delta"
if UPDATER_KEYRING=$work/other.asc UPDATER_GPG_KEY=release@example.com contrib/release.sh "$work/wrong/3.0" "rootfs=$work/rootfs.ext4" >/dev/null 2>&1; then
	die "release.sh accepts a release that no device would accept"
fi
[ -z "$(ls -A "$work/wrong")" ] || die "a failed release leaves files: $(ls -A "$work/wrong")"
ok "contrib/release.sh: signed, reproducible, with a delta, a wrong key"

# The files of the build systems. The list of modules that BitBake fetches must be that of go.mod.
contrib/yocto/update-modules.py --check 2>"$work/err" || { cat "$work/err" >&2; die "contrib/yocto: the list of modules"; }
ok "contrib/yocto: the modules of go.mod"
for config in contrib/yocto/meta-updater/files/uboot.toml examples/use/two-slots.toml; do
	mkdir -p "$work/config/keys"
	cp "$work/release.asc" "$work/config/keys"
	cp "$config" "$work/config/config.toml"
	"$UPDATER" config check "$work/config/config.toml" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "$config"; }
done
ok "contrib: the configurations of the example machines"
if command -v kas >/dev/null; then
	# kas itself would fetch the repositories first.
	"$(sed -n '1s/^#!//p' "$(command -v kas)")" - contrib/yocto/kas.yml 2>"$work/err" <<-'P' || { tail -3 "$work/err" >&2; die "kas does not understand contrib/yocto/kas.yml"; }
		import sys, json, pathlib, jsonschema, kas, yaml
		schema = json.loads((pathlib.Path(kas.__file__).parent / "schema-kas.json").read_text())
		jsonschema.validate(yaml.safe_load(open(sys.argv[1])), schema)
	P
	ok "kas: contrib/yocto/kas.yml"
else
	skip "contrib/yocto/kas.yml: kas is not installed (pip install kas)"
fi

# Buildroot's disk, by genimage, from stand-ins for kernel, GRUB and recovery, and the release of its slot.
if command -v genimage >/dev/null; then
	mkdir -p "$work/images/efi-part/EFI/BOOT"
	for file in efi-part/EFI/BOOT/bootx64.efi bzImage updater-initramfs.cpio.zst; do echo "$file" >"$work/images/$file"; done
	cp "$work/rootfs.ext2" "$work/images/rootfs.ext2"
	ln -s rootfs.ext2 "$work/images/rootfs.ext4"
	UPDATER_KEYRING=$work/release.asc UPDATER_GPG_KEY=release@example.com contrib/buildroot/board/post-image.sh "$work/images" >"$work/log" 2>&1 ||
		{ tail -20 "$work/log" >&2; die "contrib/buildroot: post-image.sh"; }
	sgdisk -p "$work/images/disk.img" | awk '/^ +[0-9]/ { print $NF }' | paste -sd ' ' | grep -qx 'esp rootfs_a rootfs_b state data' || die "contrib/buildroot: the partitions of disk.img"
	dd if="$work/images/disk.img" bs=4M skip=33 count=6 status=none | cmp - "$work/rootfs.ext2"
	mtype -i "$work/images/disk.img@@4M" ::/grub/grubenv | grep -qx 'A_LEFT=g' || die "contrib/buildroot: GRUB's state in disk.img"
	mtype -i "$work/images/disk.img@@4M" ::/EFI/BOOT/grub.cfg | cmp - "$work/images/updater-boot/grub.cfg"
	zstd -dcq "$work/images/release/rootfs.ext4.zst" | cmp - "$work/rootfs.ext2"
	ok "genimage: contrib/buildroot's disk and release"
else
	skip "contrib/buildroot: genimage is not installed"
fi

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
	br updater_x86_64_efi_defconfig >/dev/null 2>"$work/err" || { cat "$work/err" >&2; die "Buildroot does not understand contrib/buildroot"; }
	while read -r line; do
		grep -qxF "$line" "$work/buildroot/.config" || die "Buildroot dropped $line"
	done < <(grep ^BR2_ contrib/buildroot/configs/updater_x86_64_efi_defconfig)
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
