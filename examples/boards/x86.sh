# shellcheck shell=bash disable=SC2016,SC2034
# Common to the two x86 boards. Their build.sh sources this file after setting -euo pipefail.
#
# build.sh VERSION, as root on Debian 12, makes in $OUT
#     disk.img            the disk as it leaves the factory, with version 1 in slot A      (VERSION = 1 only)
#     VERSION/            the signed release, next to the images it was packed from
#     channel.toml        the signed channel, with every release that was built
# OUT, CHANNEL (the channel's address) and ARGS (kernel arguments) may be set in the environment. OVERLAY is a folder with further files of the root
# file system.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$(cd "$(dirname "$0")" && pwd)
board=$(basename "$here")
OUT=${OUT:-$top/build/boards/$board}
CHANNEL=${CHANNEL:-http://updates.example.com/$board/channel.toml}
args="panic=10 quiet console=tty0 console=ttyS0,115200 ${ARGS:-}"
base=${BASE:-$(dirname "$OUT")/x86-debian} # the unpacked Debian, from which all versions of both boards are made
updater=$top/bin/updater
version=${1:?usage: build.sh VERSION, which is a number}
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$OUT/$version"

# debian unpacks Debian once: systemd, udev, a kernel and its initramfs, which has only disk drivers, without documentation and udev's names of
# hardware.
debian() {
	[ ! -e "$base" ] || return 0
	rm -rf "$base.tmp"
	mmdebstrap --quiet --variant=minbase --include=systemd-sysv,udev,kmod,initramfs-tools,zstd,linux-image-amd64 \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/lib/udev/hwdb.d/*' --dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/gconv/*' \
		--essential-hook='mkdir -p "$1"/etc/initramfs-tools/conf.d "$1"/usr/share/initramfs-tools/modules.d' \
		--essential-hook='echo MODULES=list >"$1"/etc/initramfs-tools/conf.d/board' \
		--essential-hook='printf "%s\n" ext4 nvme ahci sd_mod sdhci_pci mmc_block usb_storage uas xhci_pci virtio_pci virtio_blk >"$1"/usr/share/initramfs-tools/modules.d/board' \
		--customize-hook='cd "$1"/boot; ln -s vmlinuz-* vmlinuz; ln -s initrd.img-* initrd.img' \
		--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/usr/share/zoneinfo' \
		bookworm "$base.tmp"
	modules "$base.tmp"
	mv "$base.tmp" "$base"
}

# modules keeps the kernel's modules that a gateway needs, and their dependencies: a quarter of the modules of Debian's kernel.
modules() {
	local kernel
	kernel=$(basename "$1"/lib/modules/*)
	(
		cd "$1/lib/modules/$kernel/kernel" || exit
		find arch crypto lib fs/{ext4,fat,nls,exfat,isofs,autofs} drivers/{ata,block,char,hid,i2c,input,mmc,nvme,pci,thermal,tty,usb,virtio,watchdog} \
			drivers/net/{ethernet/{intel,realtek},mdio,phy,usb,virtio_net.ko} drivers/scsi/{sd_mod,sr_mod,virtio_scsi}.ko -name '*.ko' -printf '%f\n'
	) | sed 's/\.ko$//' | xargs modprobe -d "$1" -S "$kernel" --all --show-depends | awk '/^insmod/ { print $2 }' | sort -u >"$1.modules"
	find "$1/lib/modules/$kernel" -name '*.ko' | sort | comm -23 - "$1.modules" | xargs rm
	rm "$1.modules"
	depmod -b "$1" "$kernel"
}

# key makes the key that signs everything here. A product signs releases offline and channels on the server, with two keys: docs/security.md.
key() {
	export GNUPGHOME=$OUT/gnupg
	trap 'gpgconf --kill all' EXIT
	[ ! -e "$OUT/release.asc" ] || return 0
	mkdir -m 700 "$GNUPGHOME"
	gpg -q --batch --passphrase '' --quick-generate-key release@example.com ed25519 sign never
	gpg -q --armor --export release@example.com >"$OUT/release.asc"
}
sign() { gpg -q --batch --yes --armor --detach-sign "$1"; }

# config prints the configuration of the device: the shipped one of the boot loader, with the disk's state, the channel, and the key's documents.
# The version is that of the slot of the factory's disk, which no install has recorded.
config() {
	local fingerprint
	fingerprint=$(gpg --with-colons --list-keys | awk -F: '$1 == "fpr" { print $10; exit }')
	grep -v '^state' "$top/examples/boot/$1/config.toml" | sed '/^keyring/a state = "PARTLABEL=state"'
	printf '[release]\nversion = "%s"\nrollback_index = %s\n' "$version" "$version"
	printf '[channel]\nurl = "%s"\n[[trust.key]]\nfingerprint = "%s"\ndocuments = ["release", "bmap", "channel"]\n' "$CHANNEL" "$fingerprint"
}

# rootfs makes the root file system of the version: Debian, the program with its units as its package has them, configuration and keyring, DHCP on
# every wired interface. It is mounted read-only; /var is in memory.
rootfs() {
	local r=$OUT/root
	rm -rf "$r"
	cp -a "$base" "$r"
	install -D "$updater" "$r/usr/bin/updater"
	install -m 644 -t "$r/usr/lib/systemd/system" "$top"/packaging/systemd/*
	install -D -m 644 "$OUT/config.toml" "$r/etc/updater/config.toml"
	install -D -m 644 "$OUT/release.asc" "$r/etc/updater/keys/release.asc"
	install -D -t "$r/etc/updater/health.d" "$top"/examples/health/health.d/*
	printf '[Match]\nType=ether\n[Network]\nDHCP=yes\n' >"$r/etc/systemd/network/80-ether.network"
	printf 'tmpfs /var tmpfs mode=0755 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n' >"$r/etc/fstab"
	printf 'RuntimeWatchdogSec=30\n' >>"$r/etc/systemd/system.conf"
	echo "$board" >"$r/etc/hostname"
	: >"$r/etc/machine-id"
	printf 'IMAGE_VERSION=%s\n' "$version" >>"$r/etc/os-release"
	systemctl --quiet --root "$r" enable systemd-networkd updater-mark-good updater-health@health.d updater-update.timer
	systemctl --quiet --root "$r" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
	[ -z "${OVERLAY:-}" ] || cp -r "$OVERLAY/." "$r"
	# GRUB 2.06 reads neither metadata_csum_seed nor orphan_file. Without a journal a read-only file system never changes.
	rm -f "$1"
	mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed,^orphan_file -m 0 -b 4096 -d "$r" "$1" 320M
	rm -rf "$r"
}

# recovery makes the initramfs that installs when no slot boots, with the device's configuration and keyring sealed into it.
recovery() {
	make -s -C "$top" initramfs KERNEL="$base/boot/vmlinuz" MODULES_ROOT="$base" CONFIG="$OUT/config.toml" KEYRING="$OUT/release.asc" INITRAMFS="$1"
}

# release ROLE[@SLOT]=IMAGE... packs the images, signs the release and publishes it in the channel.
release() {
	local image roles=()
	for image in "$@"; do
		rm -f "${image#*=}.bmap"
		"$updater" -q pack "${image#*=}"
		roles+=("$image.zst")
	done
	(
		cd "$OUT" || exit
		"$updater" -q release create -o "$version/release.toml" --product acme-gw --version "$version" --rollback-index "$version" "${roles[@]}"
		sign "$version/release.toml"
		[ "$version" != 1 ] || rm -f channel.toml
		[ -e channel.toml ] || "$updater" -q channel create --product acme-gw
		"$updater" -q channel add "$version"
		sign channel.toml
	)
}

# disk lays out the disk: an ESP of so many MiB with the files of a folder, slot A with a root file system, an empty slot B, the state.
disk() { # image, MiB, folder, root file system
	truncate -s $((2 + $2 + 640 + 8))M "$1"
	sgdisk -n1:2048:+"$2"M -t1:ef00 -c1:esp -n2:0:+320M -c2:rootfs_a -n3:0:+320M -c3:rootfs_b -n4:0:+8M -c4:state "$1" >/dev/null
	truncate -s "$2"M "$OUT/esp.img"
	mkfs.vfat -F 32 -n ESP "$OUT/esp.img" >/dev/null
	mcopy -s -i "$OUT/esp.img" "$3"/* ::/
	dd if="$OUT/esp.img" of="$1" bs=1M seek=1 conv=notrunc,sparse status=none
	dd if="$4" of="$1" bs=1M seek=$((1 + $2)) conv=notrunc,sparse status=none
	rm "$OUT/esp.img"
}
