# Bytes that an update fetches: a Debian root file system, and the same with the security updates of today, made anew and updated in place: the
# index of packed images, RAUC's (computed), updater delta, zstd --patch-from, xdelta3. BENCH_OLD and BENCH_NEW name archives of other ones.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "the owners of files need root; left out"; exit 0; }
old=${BENCH_OLD:-build/bench/root.tar} new=${BENCH_NEW:-build/bench/newer.tar}
mirror=http://deb.debian.org
made() { # FILE SOURCE...
	[ ! -e "$1" ] || return 0
	command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed; left out"; exit 0; }
	mkdir -p build/bench
	mmdebstrap --quiet --variant=standard --include=gcc,git,python3-minimal,vim-nox bookworm build/bench/part.tar "${@:2}"
	mv build/bench/part.tar "$1"
}
made "$old" "deb $mirror/debian bookworm main"
made "$new" "deb $mirror/debian bookworm main" "deb $mirror/debian bookworm-updates main" "deb $mirror/debian-security bookworm-security main"
go run ./bench/copy -delta -updater "$BENCH_WORK/updater" ${BENCH_FLAGS:-} "$old" "$new"
