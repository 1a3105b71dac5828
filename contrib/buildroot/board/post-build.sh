#!/bin/sh
# BR2_ROOTFS_POST_BUILD_SCRIPT: the kernel's name in a slot, as examples/boot/grub/grub.cfg has it.
set -eu
ln -sf bzImage "$1/boot/vmlinuz"
