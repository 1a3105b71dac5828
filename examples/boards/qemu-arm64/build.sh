#!/bin/bash
# Makes a whole device for QEMU's "virt" machine (arm64) from this source tree and Debian packages, and its updates:
#
#   debian/           packages of arm64: kernel, busybox; kept between runs
#   keys/ gnupg/      the certificates that the device trusts, and the keys that sign
#   www/              the files of a web server: the releases 1 to 4, a delta from 1 to 2, the channel
#   recovery          initramfs with keyring and configuration sealed in
#   disk.img          loader | env1 | env2 | state | boot_A | boot_B | rootfs_A | rootfs_B, with release 1 in slot A
#   stick.img         USB stick with release 4, for the recovery
#
# Run: examples/boards/qemu-arm64/build.sh [FOLDER]              # build/boards/qemu-arm64; needs neither root nor loop devices
#      examples/boards/qemu-arm64/build.sh FOLDER publish 3      # offers a release in the channel
#
# SERVER is the address of the web server as the device sees it, DEBIAN a folder for the packages. docs/boards.md shows how the board is run.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../arm64.sh
. "$(dirname "$0")/../arm64.sh"
server=${SERVER:-http://10.0.2.2:8080}

sign() { pgp --armor --detach-sign -u "$1@example.com" "$2"; } # KEY DOCUMENT makes DOCUMENT.asc

# publish RELEASE offers a release to every device that follows the channel. The channel is signed again after every change.
publish() (
	cd www
	[ -e channel.toml ] || "$updater" channel create --product qemu-arm64
	"$updater" channel add "$1"
	sign channel channel.toml
)
if [ "${2:-}" = publish ]; then
	publish "$3"
	exit
fi

begin

if ! [ -e "$debian/root" ]; then
	step "Debian's packages"
	rm -rf "$debian"/{apt,new,*.deb}
	mkdir -p "$debian/new"
	packages_for_arm64
	kernel=$(apt-cache "${apt[@]}" depends linux-image-arm64 | sed -n 's/^ *Depends: //p')
	(cd "$debian" && apt-get "${apt[@]}" download busybox-static "$kernel" && for deb in *.deb; do dpkg-deb -x "$deb" new; done)
	depmod -b "$debian/new" "${kernel#linux-image-}"
	rm -r "$debian"/apt "$debian"/*.deb
	mv "$debian/new" "$debian/root" # complete
fi
kernel=$(ls "$debian"/root/boot/vmlinuz-*)
version=${kernel#*/vmlinuz-}
busybox=$debian/root/bin/busybox

step "keys and configuration"
if ! [ -e keys ]; then # an offline key, which signs releases, and one on the server, which signs channels only
	mkdir -p -m 700 gnupg
	mkdir -p keys.new
	for key in release channel; do
		pgp --passphrase '' --quick-generate-key "$key@example.com" ed25519 sign never
		pgp --armor --export "$key@example.com" >keys.new/$key.asc
	done
	mv keys.new keys
fi
fingerprint() { pgp --with-colons --list-keys "$1@example.com" | awk -F: '/^fpr/ {print $10}'; }
sed "s|http://10.0.2.2:8080|$server|; s/RELEASE/$(fingerprint release)/; s/CHANNEL/$(fingerprint channel)/" "$here/config.toml" >config.toml

# boot RELEASE makes the image of the role boot: kernel and initramfs on FAT, for U-Boot. The kernel's modules are in the initramfs, so that
# kernel and modules are always of one build.
boot() {
	rm -rf tmp && mkdir -p tmp/{bin,dev,proc,sys,root}
	cp "$busybox" tmp/bin/busybox
	cp "$here/init" tmp/init
	echo "$1" >tmp/release
	for module in virtio_pci virtio_blk virtio_net ext4 crc32c_generic; do
		modprobe -d "$debian/root" -S "$version" --show-depends "$module" | while read -r _ file; do
			[ -e "$file" ] || continue # built in
			[ -e "tmp/${file##*/}" ] || echo "/${file##*/}" >>tmp/modules
			cp "$file" tmp/
		done
	done
	find tmp -exec touch -h -d @0 {} +
	(cd tmp && find . | sort | root cpio -o -H newc --reproducible --quiet | zstd -q -3) >initramfs
	rm -f "$2"
	truncate -s 48M "$2"
	mkfs.vfat -i "0000000$1" "$2" >/dev/null
	mcopy -i "$2" "$kernel" ::Image
	mcopy -i "$2" initramfs ::initramfs
}

# rootfs RELEASE makes the image of the role rootfs: busybox, the program, its configuration and keyring.
rootfs() {
	rm -rf tmp && mkdir -p tmp/{bin,sbin,dev,proc,sys,run,tmp} tmp/usr/bin tmp/etc/{init.d,updater/keys}
	cp "$busybox" tmp/bin/busybox
	for name in sh mount ip udhcpc date cat sleep reboot; do ln -s busybox tmp/bin/$name; done
	ln -s ../bin/busybox tmp/sbin/init
	cp "$top/bin/arm64/updater" tmp/usr/bin/updater
	cp config.toml tmp/etc/updater/
	cp keys/*.asc tmp/etc/updater/keys/
	cp "$here/rcS" tmp/etc/init.d/rcS
	cp "$here/follow" tmp/usr/bin/follow
	cat >tmp/etc/inittab <<-'INITTAB'
		::sysinit:/etc/init.d/rcS
		::respawn:/usr/bin/follow
		ttyAMA0::respawn:-/bin/sh
		::ctrlaltdel:/bin/reboot
	INITTAB
	# shellcheck disable=SC2016 # udhcpc expands them
	printf '#!/bin/sh\n[ "$1" != bound ] || { ip addr add "$ip/24" dev "$interface"; ip route add default via "$router"; }\n' >tmp/etc/udhcpc.script
	chmod +x tmp/etc/udhcpc.script
	echo "$1" >tmp/etc/release
	[ "$1" != 3 ] || rm tmp/sbin/init # release 3 does not come up, to show the fallback
	rm -f "$2"
	root mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed -m 0 -L rootfs -E root_owner=0:0 -d tmp "$2" 32M
}

# A release is its two images, packed, their block maps and one signed document.
rm -rf www && mkdir www
for release in 1 2 3 4; do
	step "release $release"
	mkdir www/$release
	boot $release www/$release/boot.img
	rootfs $release www/$release/rootfs.img
	(cd www/$release && for role in boot rootfs; do "$updater" pack $role.img; done
		"$updater" release create --product qemu-arm64 --version $release --rollback-index $release boot=boot.img.zst rootfs=rootfs.img.zst)
	sign release www/$release/release.toml
	rm www/$release/*.img
done
"$updater" release verify --keyring keys www/2

step "delta from 1 to 2, channel"
for role in boot rootfs; do "$updater" delta create --from www/1/$role.img.zst www/2/$role.img.zst; done
publish 2

step "recovery"
make -s -C "$top" initramfs ARCH=arm64 KERNEL="$kernel" KERNEL_VERSION="$version" MODULES_ROOT="$debian/root" MODULES=virtio,usb-storage,input,fs \
	KEYRING="$out/keys" CONFIG="$out/config.toml" INITRAMFS="$out/recovery"

# The disk begins with empty slots. serial# names the device in its reports. BOOT_ORDER is that of the bench, see below.
step "disk.img"
rm -f disk.img loader.img
truncate -s 400M disk.img
sgdisk -a 8192 -n1:0:+100M -c1:loader -n2:0:+4M -c2:env1 -n3:0:+4M -c3:env2 -n4:0:+8M -c4:state \
	-n5:0:+64M -c5:boot_A -n6:0:+64M -c6:boot_B -n7:0:+64M -c7:rootfs_A -n8:0:+64M -c8:rootfs_B disk.img >/dev/null
place() { dd if="$1" of=disk.img bs=512 seek="$(sgdisk -i "$2" disk.img | awk '/^First sector/ {print $3}')" conv=notrunc,sparse status=none; }
truncate -s 100M loader.img
mkfs.vfat loader.img >/dev/null
mkimage -A arm64 -T script -C none -d "$here/boot.cmd" boot.scr >/dev/null
mcopy -i loader.img boot.scr ::boot.scr
mcopy -i loader.img "$kernel" ::Image
mcopy -i loader.img recovery ::initramfs
place loader.img 1
printf 'BOOT_ORDER=B\nBOOT_A_LEFT=0\nBOOT_B_LEFT=1\nrecovery=0\nserial#=QEMU-0001\n' | mkenvimage -r -s 0x4000 -o env -
place env 2
place env 3

# The program installs release 1 as every later one. The state store then records what slot A holds, which the first delta needs. The bench
# counts as the running system in slot B until A is good; then B, which is empty, is marked bad.
{ cat config.toml; printf '[disk]\npath = "%s"\n' "$out/disk.img"; } >bench.toml
bench() { "$updater" "$@" --config bench.toml; }
bench install --booted B --force-from-bad www/1
bench mark good --booted A
bench mark bad B --booted A
bench status --booted A >&3

step "stick.img"
rm -f stick.img
truncate -s 100M stick.img
mkfs.vfat stick.img >/dev/null
mmd -i stick.img ::updater
mcopy -i stick.img www/4/* ::updater/
rm -rf tmp loader.img boot.scr env initramfs bench.toml
