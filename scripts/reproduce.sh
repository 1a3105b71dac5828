#!/bin/bash
# Builds the binary, the initramfs and the packages in two folders with different umasks and compares the bytes.
# WHAT=initramfs or WHAT=package does one of them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
what=${WHAT:-initramfs package}
for i in 1 2; do
	git clone -q . "$work/$i-folder"
	for w in $what; do
		(umask "$([ $i = 1 ] && echo 022 || echo 077)" && make -s -C "$work/$i-folder" "$w" "$@" >"$work/log" 2>&1) || { cat "$work/log" >&2; exit 1; }
	done
done
same() { # a file that both folders have
	cmp "$work/1-folder/$1" "$work/2-folder/$1"
	(cd "$work/1-folder" && sha256sum "$1")
}
case $what in *initramfs*) same "bin/$(go env GOARCH)/updater"; same bin/initramfs.cpio.zst ;; esac
case $what in *package*)
	diff <(ls "$work/1-folder/dist") <(ls "$work/2-folder/dist")
	for f in "$work"/1-folder/dist/*; do same "dist/${f##*/}"; done
	;;
esac
