#!/bin/bash
# The factory line: eight throttled disks against one, in turns: at most 1.15 x the time and 1.5 x the memory. BENCH_FLAGS are
# options of bench/line, such as -runs 5 or -rate 20; BENCH_MIB is the size of the image.
set -euo pipefail
[ "$(id -u)" = 0 ] && [ -e /dev/fuse ] || { echo "throttled disks need root and /dev/fuse: skipped"; exit 0; }
command -v gpg >/dev/null && command -v openssl >/dev/null && command -v zstd >/dev/null || { echo "gpg, openssl or zstd is not installed: skipped"; exit 0; }
here=$PWD work=$BENCH_WORK/provision
mkdir -p "$work"; cd "$work"
export GNUPGHOME=$work/gnupg; mkdir -m 700 gnupg
gpg -q --batch --passphrase '' --quick-generate-key 'bench <bench@example.com>' ed25519 sign never 2>/dev/null
gpg -q --armor --export bench@example.com >key.asc
openssl genpkey -quiet -algorithm ed25519 -out station.pem
size=${BENCH_MIB:-64}
head -c "$((size / 2))M" /dev/urandom >image.img; cat image.img image.img >image; mv image image.img
"$BENCH_WORK/updater" bmap create -o image.img.bmap image.img >/dev/null
gpg -q --batch --armor --detach-sign image.img.bmap
gpgconf --kill all 2>/dev/null || true
zstd -q --rm image.img
cat >plan.toml <<-PLAN
	name = "bench"
	keyring = ["key.asc"]
	[[partition]]
	name = "rootfs_a"
	size = "$((size + 8))M"
	image = "image.img.zst"
	[record]
	spool = "spool"
	station = "bench"
	key = "station.pem"
PLAN
cd "$here"
go run ./bench/line -updater "$BENCH_WORK/updater" -plan "$work/plan.toml" -size $((size + 24)) ${BENCH_FLAGS:-}
