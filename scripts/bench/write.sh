#!/bin/bash
# Writing: the engines against dd and bmaptool on a loop device with direct I/O (ratios of bytes a second, peak of dirty
# pages), and the peak memory of a whole install of a raw image into a file.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
	go test ./blockdev -run '^$' -bench '^BenchmarkWrite$' -benchtime "${BENCH_TIMES:-3x}" | grep -E '^Benchmark|skip' || true
else
	echo "loop devices need root: skipped"
fi
command -v sgdisk >/dev/null && command -v gpg >/dev/null && command -v grub-editenv >/dev/null || { echo "sgdisk, gpg or grub-editenv is not installed: skipped"; exit 0; }
work=$BENCH_WORK/write
mkdir -p "$work"; cd "$work"
export GNUPGHOME=$work/gnupg; mkdir -m 700 gnupg
gpg -q --batch --passphrase '' --quick-generate-key 'bench <bench@example.com>' ed25519 sign never 2>/dev/null
gpg -q --armor --export bench@example.com >key.asc
size=${BENCH_MIB:-256}
head -c "$((size / 2))M" /dev/urandom >image.img; truncate -s "${size}M" image.img
"$BENCH_WORK/updater" bmap create -o image.img.bmap image.img >/dev/null
gpg -q --batch --armor --detach-sign image.img.bmap
truncate -s $((2 * size + 8))M disk.img
sgdisk -n1:2048:+1M -c1:env -n2:0:+${size}M -c2:rootfs_a -n3:0:+${size}M -c3:rootfs_b disk.img >/dev/null
grub-editenv grubenv create; grub-editenv grubenv set ORDER="A B" A_OK=1 A_TRY=0 B_OK=1 B_TRY=0
for engine in paced direct auto; do
	cat >config.toml <<-CONFIG
		keyring = ["key.asc"]
		[disk]
		path = "disk.img"
		engine = "$engine"
		[boot]
		backend = "grub"
		env = "$work/grubenv"
		tries = 1
		booted = "A"
		[[slot]]
		name = "A"
		partitions = { rootfs = "PARTLABEL=rootfs_a" }
		[[slot]]
		name = "B"
		partitions = { rootfs = "PARTLABEL=rootfs_b" }
	CONFIG
	"$BENCH_WORK/updater" install --config config.toml --slot B --rewrite --json image.img >out.json 2>err &
	pid=$! peak=0
	while [ -r /proc/$pid/status ]; do
		kib=$(awk '/^VmHWM/{print $2}' /proc/$pid/status 2>/dev/null || true)
		[ -z "$kib" ] || peak=$kib
		sleep 0.01
	done
	wait $pid || { cat err >&2; exit 1; }
	printf 'install, engine %-7s peak RSS %5.1f MiB of 32 MiB; %s\n' "$engine" "$(awk "BEGIN{print $peak/1024}")" "$(grep -o '"engine":"[^"]*"' out.json | tail -1)"
done
gpgconf --kill all 2>/dev/null || true
