# Parsed by BitBake; not built.
# Only for machines with the override uboot-slots: the slot choice as U-Boot's built-in environment, redundant storage and boot counting.
FILESEXTRAPATHS:prepend:uboot-slots := "${THISDIR}/files:${UPDATER_TREE}/examples/boot/uboot:"
SRC_URI:append:uboot-slots = " file://updater-ab.cfg file://bootcount.env"

# The folder of the board in U-Boot's source, and its own environment there; the disk as U-Boot names it, interface and number.
UPDATER_UBOOT_BOARD ?= ""
UPDATER_UBOOT_DISK ?= "mmc 0"
UPDATER_CMDLINE ?= ""

do_configure:prepend:uboot-slots() {
	board=${S}/board/${UPDATER_UBOOT_BOARD}
	[ -d "$board" ] && [ -n "${UPDATER_UBOOT_BOARD}" ] || bbfatal "UPDATER_UBOOT_BOARD names no folder of U-Boot's board/"
	: >$board/updater.env
	for env in $board/$(basename $board).env; do
		[ ! -e $env ] || cat $env >>$board/updater.env
	done
	sed -e '/^#/d' -e 's|mmc 0|${UPDATER_UBOOT_DISK}|g' -e 's|#recovery \([^ ]*\) /|#boot \1 /recovery/|g' -e 's|panic=10|& rootwait ${UPDATER_CMDLINE}|g' \
		${UNPACKDIR}/bootcount.env >>$board/updater.env
	set -- ${UPDATER_UBOOT_DISK}
	echo "CONFIG_ENV_FAT_INTERFACE=\"$1\"" >>${UNPACKDIR}/updater-ab.cfg
	echo "CONFIG_ENV_FAT_DEVICE_AND_PART=\"$2:1\"" >>${UNPACKDIR}/updater-ab.cfg
}
