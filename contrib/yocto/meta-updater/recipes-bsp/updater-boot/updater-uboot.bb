SUMMARY = "U-Boot's environment with the slot choice, in its first state"
DESCRIPTION = "Both copies of the redundant environment, made of the one that the machine's U-Boot was built with; docs/boot/uboot.md"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS = "u-boot-tools-native"

inherit deploy nopackages

UPDATER_UBOOT_ENV ?= "${DEPLOY_DIR_IMAGE}/u-boot-initial-env-${MACHINE}"
UPDATER_UBOOT_ENV_SIZE ?= "0x4000"

B = "${WORKDIR}/build"
do_configure[noexec] = "1"
do_compile[depends] += "virtual/bootloader:do_deploy"
do_compile[cleandirs] = "${B}"
do_compile() {
	grep -q '^ab_go=' ${UPDATER_UBOOT_ENV} || bbfatal "U-Boot was built without the slot choice: see recipes-bsp/u-boot"
	# If a name is set twice, the last entry counts.
	awk -F= '/=/ { line[$1] = $0 } END { for (name in line) print line[name] }' ${UPDATER_UBOOT_ENV} | sort >${B}/env.txt
	mkenvimage -r -s ${UPDATER_UBOOT_ENV_SIZE} -o ${B}/uboot.env ${B}/env.txt
}
do_install[noexec] = "1"
do_deploy() {
	install -d ${DEPLOYDIR}/updater-uboot
	install -m 0644 ${B}/uboot.env ${DEPLOYDIR}/updater-uboot/uboot.env
	install -m 0644 ${B}/uboot.env ${DEPLOYDIR}/updater-uboot/uboot-redund.env
}
addtask deploy after do_compile before do_build
