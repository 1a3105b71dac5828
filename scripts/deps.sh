#!/bin/bash
# Installs the Debian packages that the tests and the demo need; for users other than root it prints the command. build/python gets the
# library of a client that the tests call, from PyPI; without it they skip.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
packages=()
need() { command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || packages+=("$2"); }
need bmaptool bmap-tools
need grub-editenv grub-common
need /usr/lib/grub/x86_64-efi/iorw.mod grub-efi-amd64-bin
need mkenvimage u-boot-tools
need /usr/lib/u-boot/qemu_arm64/u-boot.bin u-boot-qemu
need fw_printenv libubootenv-tool
need sgdisk gdisk
need tmux tmux
need cgpt cgpt
need grub-fstest grub-common
need efibootmgr efibootmgr
need /usr/lib/systemd/boot/efi/systemd-bootx64.efi systemd-boot-efi
# scripts/uboot-rom.sh builds U-Boot from Debian's source package.
need dpkg-source dpkg-dev
need gcc gcc
need bison bison
need flex flex
need bc bc
need swig swig
need iasl acpica-tools
need dtc device-tree-compiler
need python3-config python3-dev
need /usr/lib/python3.11/ensurepip python3-venv
need /usr/include/openssl/evp.h libssl-dev
need /usr/include/gnutls/gnutls.h libgnutls28-dev
need /usr/include/uuid/uuid.h uuid-dev
need /usr/lib/python3/dist-packages/setuptools python3-setuptools
need mkfs.vfat dosfstools
need mcopy mtools
need mke2fs e2fsprogs
need sfdisk fdisk
need qemu-system-x86_64 qemu-system-x86
need qemu-system-aarch64 qemu-system-arm
need /usr/share/OVMF/OVMF_CODE_4M.fd ovmf
need /usr/lib/systemd/boot/efi/linuxx64.efi.stub systemd-boot-efi
need objcopy binutils
need mmdebstrap mmdebstrap
need depmod kmod
need busybox busybox-static
need gpg gnupg
need gpgv gpgv
need openssl openssl
need cpio cpio
need mandoc mandoc
need rpm rpm
need shellcheck shellcheck
need mkosi mkosi
need genimage genimage
need dnsmasq dnsmasq-base
need mkfs.exfat exfatprogs
need mount.exfat-fuse exfat-fuse
need xorriso xorriso
need xz xz-utils
need zstd zstd
need lz4 lz4
need bzip2 bzip2
need nginx nginx-light
need ip iproute2
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need losetup mount
# The package lists are needed too: internal/abdisk downloads a kernel and a root file system.
if [ "$(id -u)" = 0 ] && ! apt-cache show linux-image-amd64 >/dev/null 2>&1; then
	apt-get update -qq >&2
fi
if [ ${#packages[@]} != 0 ]; then
	line="apt-get install -y --no-install-recommends ${packages[*]}"
	if [ "$(id -u)" != 0 ]; then
		echo "missing; run as root: $line" >&2
		exit 1
	fi
	echo "deps: $line" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq >&2
	$line >/dev/null
fi
if ! cmp -s service/testdata/requirements.txt build/python/requirements.txt; then
	/usr/bin/python3 -m venv build/python && build/python/bin/pip install -q -r service/testdata/requirements.txt &&
		cp service/testdata/requirements.txt build/python/ || echo "deps: no Python client" >&2
fi
