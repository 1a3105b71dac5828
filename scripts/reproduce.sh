#!/bin/bash
# Builds the binary and the initramfs in two folders with different umasks and compares the bytes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for i in 1 2; do
	git clone -q . "$work/$i-folder"
	(umask $([ $i = 1 ] && echo 022 || echo 077) && make -s -C "$work/$i-folder" initramfs "$@" >/dev/null)
done
for f in "$(go env GOARCH)/updater" initramfs.cpio.zst; do
	cmp "$work/1-folder/bin/$f" "$work/2-folder/bin/$f"
	sha256sum "$work/1-folder/bin/$f" | sed "s#$work/1-folder/##"
done
