#!/bin/bash
# Makes a card for the Raspberry Pi 4 and 5 from packages of arm64, and its updates:
#
#   debian/           packages, unpacked; kept between runs. No arm64 program runs here.
#   keys/ gnupg/      the certificate that the device trusts, and the key that signs; that of a product stays offline
#   www/1 www/2       two releases, each with a boot partition for either slot and a root file system
#   card.img          autoboot | boot A | boot B | rootfs A | rootfs B | state | data, with release 1 in slot A and release 2 as files in data;
#                     write it to a card with dd
#   bench.toml        the device's configuration for card.img, to try an update without a board
#
# Run: examples/boards/raspberry-pi/build.sh [FOLDER]       # build/boards/raspberry-pi; needs neither root nor loop devices
#
# KERNEL=FILE.deb is the kernel, such as linux-image-*-rpi-v8 of archive.raspberrypi.com. Without it, Debian's is used: it boots a
# Raspberry Pi 4, but has neither /dev/vcio, by which an update switches, nor a driver for the SD card of a Raspberry Pi 5. It serves to try everything
# but the board. DEBIAN is a folder for the packages. No board has run this card yet: docs/boot/tryboot.md has the checklist for one.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../arm64.sh
. "$(dirname "$0")/../arm64.sh"
sign() { pgp --armor --detach-sign "$1"; }

begin

if ! [ -e "$debian/unpacked" ]; then
	step "packages"
	rm -rf "$debian"
	mkdir -p "$debian"/{apt,root}
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main non-free-firmware" >"$debian/apt/list"
	packages_for_arm64 -o "Dir::Etc::sourcelist=$debian/apt/list" -o Dir::Etc::sourceparts=-
	kernel=${KERNEL:-$(apt-cache "${apt[@]}" depends linux-image-arm64 | sed -n 's/^ *Depends: //p')}
	if [ -n "${KERNEL:-}" ]; then cp "$KERNEL" "$debian/kernel.deb" && kernel=; fi
	# shellcheck disable=SC2086 # no name with KERNEL
	(cd "$debian" && apt-get "${apt[@]}" download busybox-static raspi-firmware $kernel && for deb in *.deb; do dpkg-deb -x "$deb" root; done)
	[ -e "$debian/root/lib" ] || ln -s usr/lib "$debian/root/lib" # where modprobe looks
	touch "$debian/unpacked"
fi
kernel=$(ls "$debian"/root/boot/vmlinuz-*)
version=${kernel#*/vmlinuz-}
depmod -b "$debian/root" "$version"
busybox=$debian/root/usr/bin/busybox
trees=$debian/root/usr/lib/linux-image-$version

step "keys"
if ! [ -e keys/release.asc ]; then
	mkdir -p keys
	mkdir -p -m 700 gnupg
	pgp --passphrase '' --quick-generate-key 'Raspberry Pi <release@example.com>' ed25519 sign never
	pgp --armor --export >keys/release.asc
fi
cp "$here/config.toml" .

# boot RELEASE SLOT makes the image of the role boot for one slot, which cmdline.txt names: firmware, kernel, device trees, initramfs. The
# kernel's modules are in the initramfs, so that kernel and modules are always of one build. Drivers that are built into the kernel are left out.
boot() {
	rm -rf tmp && mkdir -p tmp/{bin,dev,proc,sys,root}
	cp "$busybox" tmp/bin/busybox
	cp "$here/init" tmp/init
	: >tmp/modules
	for module in fixed gpio-regulator clk-raspberrypi reset-raspberrypi sdhci-iproc sdhci-brcmstb mmc_block bcm2835_wdt ext4 crc32c_generic vfat nls_cp437 nls_ascii; do
		modprobe -d "$debian/root" -S "$version" --show-depends "$module" 2>>build.log | while read -r _ file _; do
			[ -e "$file" ] || continue # built in
			file=${file%.xz}
			[ -e "tmp/${file##*/}" ] || echo "/${file##*/}" >>tmp/modules
			if [ -e "$file" ]; then cp "$file" tmp/; else xz -dc "$file.xz" >"tmp/${file##*/}"; fi
		done || true # no such driver in this kernel
	done
	find tmp -exec touch -h -d @0 {} +
	(cd tmp && find . | sort | root cpio -o -H newc --reproducible --quiet | zstd -q -3) >initramfs
	rm -f "$3"
	truncate -s 96M "$3"
	mkfs.vfat -F 16 -i "0000000$1" "$3" >/dev/null
	mcopy -i "$3" "$debian"/root/usr/lib/raspi-firmware/{start4.elf,fixup4.dat} "$here/config.txt" ::
	mcopy -i "$3" "$trees"/broadcom/bcm2711-rpi-*.dtb "$trees"/broadcom/bcm2712-rpi-*.dtb ::
	mcopy -i "$3" "$here/cmdline-$2.txt" ::cmdline.txt
	mcopy -i "$3" "$kernel" ::kernel8.img
	mcopy -i "$3" initramfs ::initramfs8
	if [ -d "$trees/overlays" ]; then mcopy -s -i "$3" "$trees/overlays" ::; fi # a kernel of archive.raspberrypi.com
}

# rootfs RELEASE makes the image of the role rootfs: busybox, the program, its configuration and keyring.
rootfs() {
	rm -rf tmp && mkdir -p tmp/{bin,sbin,dev,proc,sys,run,tmp,media,mnt} tmp/usr/bin tmp/etc/{init.d,updater/keys}
	cp "$busybox" tmp/bin/busybox
	for name in sh mount umount ls rm cat sleep reboot dmesg hexdump watchdog; do ln -s busybox tmp/bin/$name; done
	ln -s ../bin/busybox tmp/sbin/init
	cp "$top/bin/arm64/updater" tmp/usr/bin/updater
	cp config.toml tmp/etc/updater/
	cp keys/release.asc tmp/etc/updater/keys/
	cp "$here/rcS" tmp/etc/init.d/rcS
	printf '%s\n' ::sysinit:/etc/init.d/rcS ::respawn:-/bin/sh tty1::askfirst:-/bin/sh ::ctrlaltdel:/bin/reboot >tmp/etc/inittab
	echo "$1" >tmp/etc/release
	rm -f "$2"
	root mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed -m 0 -L rootfs -E root_owner=0:0 -d tmp "$2" 48M
}

# A release is its three images, packed, their block maps and one signed document. The index stays until an older release has a hole that must not
# come back; then updater rollback refuses that one.
rm -rf www && mkdir www
for release in 1 2; do
	step "release $release"
	mkdir www/$release
	for slot in a b; do boot $release $slot www/$release/boot-$slot.img; done
	rootfs $release www/$release/rootfs.img
	(cd www/$release && for image in boot-a boot-b rootfs; do "$updater" pack $image.img; done
		"$updater" release create --product raspberry-pi --version $release --rollback-index 1 \
			boot@A=boot-a.img.zst boot@B=boot-b.img.zst rootfs=rootfs.img.zst)
	sign www/$release/release.toml
	rm www/$release/*.img
done

# The card begins with empty slots. autoboot.txt is changed in place by every update. sfdisk keeps the sector of each start in card.sfdisk.
step "card.img"
rm -f card.img* data.img
truncate -s 410M card.img
sfdisk -q card.img <"$here/card.sfdisk"
place() { dd if="$1" of=card.img bs=1M seek="$2" conv=notrunc,sparse status=none; }
truncate -s 16M autoboot.img
mkfs.vfat -F 16 -i 00000000 autoboot.img >/dev/null
mcopy -i autoboot.img "$here/autoboot.txt" ::autoboot.txt
place autoboot.img 1
truncate -s 60M data.img
mkfs.vfat -F 16 -n DATA data.img >/dev/null
mcopy -i data.img www/2/* ::
place data.img 349

# The program installs release 1 as every later one, so that the state store records what slot A holds. The bench counts as the running
# system in slot B until A is good; then B, which is empty, is marked bad. docs/boot/tryboot.md describes what a board's firmware would do.
sed '/^\[boot\]/i [disk]\npath = "card.img"\n' config.toml >bench.toml
bench() { "$updater" "$@" --config bench.toml; }
bench install --booted B --force-from-bad www/1
rm card.img.tryboot # the flag that a firmware would have cleared
bench mark good --booted A
bench mark bad B --booted A
bench status --booted A >&3
rm -rf tmp initramfs autoboot.img data.img
