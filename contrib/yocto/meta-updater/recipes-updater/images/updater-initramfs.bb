SUMMARY = "Initramfs that installs updates and is the recovery"
DESCRIPTION = "u-root's init, updater, configuration, certificates and the kernel's modules; docs/initramfs.md"
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit updater-source deploy nopackages

# As in docs/initramfs.md. Empty modules: a kernel that has its drivers built in.
UPDATER_INITRAMFS_MODULES ?= "virtio,storage,usb-storage,net,input,fs,watchdog"
UPDATER_CONFIG ?= ""
UPDATER_KEYRING ?= ""

# The modules come from the kernel's tarball, so the initramfs cannot be bundled into the kernel's image itself.
do_compile[depends] += "virtual/kernel:do_deploy"
do_compile[file-checksums] = "${@' '.join(f + ':True' for f in (d.getVar('UPDATER_CONFIG') + ' ' + d.getVar('UPDATER_KEYRING')).split())}"
do_compile() {
	if [ -z "${UPDATER_CONFIG}" ] || [ -z "${UPDATER_KEYRING}" ]; then
		bbfatal "UPDATER_CONFIG and UPDATER_KEYRING are needed: they are sealed into the initramfs"
	fi
	rm -rf ${B}/modules
	mkdir -p ${B}/modules
	release=""
	if [ -n "${UPDATER_INITRAMFS_MODULES}" ]; then
		tar -xf ${DEPLOY_DIR_IMAGE}/modules-${MACHINE}.tgz -C ${B}/modules
		release=$(ls ${B}/modules/lib/modules)
	fi
	updater_make initramfs KEYRING="${UPDATER_KEYRING}" CONFIG="${UPDATER_CONFIG}" INITRAMFS=${B}/updater-initramfs.cpio.zst \
		MODULES_ROOT=${B}/modules MODULES="${UPDATER_INITRAMFS_MODULES}" KERNEL_VERSION="$release"
}
do_install[noexec] = "1"

do_deploy() {
	install -m 0644 ${B}/updater-initramfs.cpio.zst ${DEPLOYDIR}/updater-initramfs-${MACHINE}.cpio.zst
	install -m 0644 ${B}/updater-initramfs.cpio.zst.report ${DEPLOYDIR}/updater-initramfs-${MACHINE}.report
}
addtask deploy after do_compile before do_build
