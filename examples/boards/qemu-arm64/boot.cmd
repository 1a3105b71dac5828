# U-Boot's script on the partition "loader". It chooses the slot or the recovery.
#
# The environment has two copies of 16 KiB in U-Boot's redundant format: CRC-32 (little endian), flag, variables. The script reads and saves
# them itself, because Debian's U-Boot keeps its own environment in flash, without a second copy. A U-Boot built with
# CONFIG_ENV_REDUNDANT does this before its bootcmd; such a board begins below at "choose".
#
# RAM: copy 1 at 0x50000000, copy 2 at 0x50010000, a checksum at 0x50020000 and, with its bytes reversed, at 0x50020004.
setenv vars BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT recovery serial#
setenv sum 'crc32 ${copy}0005 3ffb 50020000; cp.b 50020003 50020004 1; cp.b 50020002 50020005 1; cp.b 50020001 50020006 1; cp.b 50020000 50020007 1'
part start virtio 0 env1 lba1
part start virtio 0 env2 lba2
virtio read 50000000 ${lba1} 20
virtio read 50010000 ${lba2} 20
setenv ok1 0; setenv copy 5000; run sum; if cmp.b 50020004 50000000 4; then setenv ok1 1; fi
setenv ok2 0; setenv copy 5001; run sum; if cmp.b 50020004 50010000 4; then setenv ok2 1; fi
setexpr.b flag1 *50000004
setexpr.b flag2 *50010004

# The copy with the higher flag counts; 0 follows 0xff. The other copy is saved next.
setenv use 1
if itest ${flag2} > ${flag1}; then setenv use 2; fi
if itest ${flag1} == 0 && itest ${flag2} == ff; then setenv use 1; fi
if itest ${flag1} == ff && itest ${flag2} == 0; then setenv use 2; fi
if test ${ok1} = 0; then setenv use 2; fi
if test ${ok2} = 0; then setenv use 1; fi
if test ${use} = 1; then
	setenv copy 5000; setenv other 5001; setenv lba ${lba2}; setexpr flag ${flag1} + 1
else
	setenv copy 5001; setenv other 5000; setenv lba ${lba1}; setexpr flag ${flag2} + 1
fi
if test ${ok1}${ok2} != 00; then env import -b ${copy}0005 3ffb ${vars}; fi
setenv seal 'setenv copy ${other}; run sum; cp.b 50020004 ${other}0000 4'
setenv save 'env export -b -s 3ffb ${other}0005 ${vars}; mw.b ${other}0004 ${flag}; run seal; virtio write ${other}0000 ${lba} 20'

# choose: the first slot of BOOT_ORDER that has tries left. Its try is saved before it boots; "updater mark good" gives the tries back.
# Without a slot, or when "updater recover" asks for it, the recovery boots. One boot saves once.
setenv slot
for s in ${BOOT_ORDER}; do
	if test -z "${slot}"; then
		if test ${s} = A && itest ${BOOT_A_LEFT} > 0; then setenv slot A; fi
		if test ${s} = B && itest ${BOOT_B_LEFT} > 0; then setenv slot B; fi
	fi
done
if test "${recovery}" = 1; then setenv slot; setenv recovery 0; run save; fi
if test "${slot}" = A; then setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1; run save; fi
if test "${slot}" = B; then setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1; run save; fi

if test -n "${slot}"; then
	echo "BOARD: U-Boot boots slot ${slot}, tries left: A ${BOOT_A_LEFT}, B ${BOOT_B_LEFT}"
	setenv from boot_${slot}
	setenv bootargs console=ttyAMA0 quiet panic=1 root=PARTLABEL=rootfs_${slot} updater.slot=${slot}
else
	echo "BOARD: U-Boot boots the recovery"
	setenv from loader
	setenv bootargs console=ttyAMA0 quiet panic=1 updater.mode=recover
fi
part number virtio 0 ${from} part
if load virtio 0:${part} ${kernel_addr_r} Image && load virtio 0:${part} ${ramdisk_addr_r} initramfs; then
	booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
fi
echo "BOARD: ${from} does not boot"
reset
