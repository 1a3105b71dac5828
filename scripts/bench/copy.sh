#!/bin/bash
# Copies a Debian root file system of 1 GiB, in every form, to a partition in memory and to one of 40 MB/s: updater, bmaptool, dd. Leaves the
# tables in build/bench/copy.md and their drawing in build/bench/copy.svg and copy-slow.svg.
# BENCH_ROOT names an archive of another root file system, BENCH_FLAGS options such as -runs 9 or -forms raw,xz.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "loop devices need root; left out"; exit 0; }
root=${BENCH_ROOT:-build/bench/root.tar}
mkdir -p build/bench
if [ ! -e "$root" ]; then
	command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed; left out"; exit 0; }
	mmdebstrap --quiet --variant=standard --include=gcc,git,python3-minimal,vim-nox bookworm build/bench/part.tar http://deb.debian.org/debian
	mv build/bench/part.tar "$root"
fi
# shellcheck disable=SC2086
measure() { go run ./bench/copy -updater "$BENCH_WORK/updater" ${BENCH_FLAGS:-} "$@" "$root" | tee "build/bench/copy$name.md"; }
draw() { awk -v table='| form | command' -v labels=2 -v title="$1" -f scripts/plot.awk "build/bench/copy$name.md" >"build/bench/copy$name.svg"; }
name=''
measure
draw 'Copying to memory, MB of mapped data a second'
name=-slow
measure -slow -runs 1 -forms raw,gz,zst3,zst19,packed,lz4
draw 'Copying to a device of 40 MB/s, MB of mapped data a second'
