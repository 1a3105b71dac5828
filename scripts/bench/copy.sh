# Copies a Debian root file system of 1 GiB, in every form, to a loop device with direct I/O: updater, bmaptool, dd.
# BENCH_ROOT names an archive of another root file system, BENCH_FLAGS options such as -runs 9 or -forms raw,xz.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "loop devices need root; left out"; exit 0; }
root=${BENCH_ROOT:-build/bench/root.tar}
if [ ! -e "$root" ]; then
	command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed; left out"; exit 0; }
	mkdir -p build/bench
	mmdebstrap --quiet --variant=standard --include=gcc,git,python3-minimal,vim-nox bookworm build/bench/part.tar http://deb.debian.org/debian
	mv build/bench/part.tar "$root"
fi
go run ./bench/copy -updater "$BENCH_WORK/updater" ${BENCH_FLAGS:-} "$root"
