SUMMARY = "GRUB's slot choice and its first state"
DESCRIPTION = "grub.cfg, tries.cfg and grubenv for the ESP; docs/boot/grub.md"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS = "grub-native"

inherit deploy nopackages

FILESEXTRAPATHS:prepend := "${UPDATER_TREE}/examples/boot/grub:"
SRC_URI = "file://grub.cfg file://tries.cfg"
S = "${UNPACKDIR}"
# Slot B is empty at first, and not bootable.
UPDATER_GRUBENV ?= "ORDER='A B' A_LEFT=g B_LEFT=0"
# More of the kernel's command line, such as a console.
UPDATER_CMDLINE ?= ""

B = "${WORKDIR}/build"
do_configure[noexec] = "1"
do_compile[cleandirs] = "${B}"
do_compile() {
	sed 's|panic=10|& rootwait ${UPDATER_CMDLINE}|' ${UNPACKDIR}/grub.cfg >${B}/grub.cfg
	grub-editenv ${B}/grubenv create
	grub-editenv ${B}/grubenv set ${UPDATER_GRUBENV}
}
do_install[noexec] = "1"
do_deploy() {
	install -d ${DEPLOYDIR}/updater-grub
	install -m 0644 ${B}/grub.cfg ${UNPACKDIR}/tries.cfg ${B}/grubenv ${DEPLOYDIR}/updater-grub
}
addtask deploy after do_compile before do_build
