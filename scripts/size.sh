#!/bin/bash
# Prints the sizes of binary and initramfs against their budgets and fails above one. Arguments: build flags.
set -euo pipefail
bad=0
row() { # name, bytes, limit in MiB
	awk -v name="$1" -v size="$2" -v limit="$3" 'BEGIN { printf "%-34s %10d bytes  %6.2f MiB of %.1f MiB\n", name, size, size / 1048576, limit; exit size > limit * 1048576 }' ||
		{ echo "over budget: $1" >&2; bad=1; }
}
stamp="-s -w -buildid="
for arch in amd64 arm64 arm riscv64; do
	align=
	[ $arch != amd64 ] || align=-funcalign=16 # as in the Makefile
	CGO_ENABLED=0 GOARCH=$arch go build "$@" -ldflags "$stamp $align" -o "build/size/updater-$arch" ./cmd/updater
	row "updater $arch" "$(stat -c %s "build/size/updater-$arch")" 14
done
row "initramfs (zstd, without modules)" "$(stat -c %s bin/initramfs.cpio.zst)" 6.5
# text/template or reflect's MethodByName would keep every method of every package in the binary.
n=$(CGO_ENABLED=0 go build "$@" -ldflags="$stamp -dumpdep" -o /dev/null ./cmd/updater 2>&1 | grep -c ReflectMethod || true)
echo "uses of reflect's method by name: $n of 0"
[ "$n" = 0 ] || bad=1
exit $bad
