# Makes a signed release of an image in DEPLOY_DIR_IMAGE/IMAGE-MACHINE.release: release.toml with its signature, the images packed, their block
# maps, and a delta of each for devices that have an older release. Inherit it in an image, or for all of them with IMAGE_CLASSES += "updater-image".

# ROLE=TYPE is a type of this image; ROLE=file:NAME and ROLE@SLOT=file:NAME are files of DEPLOY_DIR_IMAGE (docs/releases.md).
UPDATER_ROLES ?= "rootfs=ext4"
UPDATER_PRODUCT ?= "${MACHINE}"
UPDATER_VERSION ?= "${DISTRO_VERSION}"
UPDATER_ROLLBACK_INDEX ?= ""
UPDATER_CREATE ?= ""
# Folders of older releases, as published: a delta from each.
UPDATER_DELTA_FROM ?= ""
# The key that signs, and a certificate that the devices trust. Without a key sign elsewhere: gpg --armor --detach-sign release.toml.
UPDATER_GPG_KEY ?= ""
UPDATER_KEYRING ?= ""
UPDATER_GNUPGHOME ?= "${@os.environ.get('GNUPGHOME') or os.path.expanduser('~/.gnupg')}"

def updater_types(d):
    return [r.split('=')[1] for r in d.getVar('UPDATER_ROLES').split() if '=file:' not in r]
IMAGE_FSTYPES += "${@' '.join(updater_types(d))}"

UPDATER_OPTIONS = "--product '${UPDATER_PRODUCT}' --version '${UPDATER_VERSION}' ${UPDATER_CREATE}"
UPDATER_OPTIONS .= "${@' --rollback-index ' + d.getVar('UPDATER_ROLLBACK_INDEX') if d.getVar('UPDATER_ROLLBACK_INDEX') else ''}"

do_updater_release() {
	images=${WORKDIR}/updater-release
	rm -rf $images
	mkdir $images
	roles=""
	for role in ${UPDATER_ROLES}; do
		file=${role#*=}
		case $file in
		file:*) from=${DEPLOY_DIR_IMAGE}/${file#file:} name=$(basename ${file#file:}) ;;
		*) from=${IMGDEPLOYDIR}/${IMAGE_NAME}.$file name=${IMAGE_BASENAME}-${MACHINE}.$file ;;
		esac
		ln -s $(realpath $from) $images/$name
		roles="$roles ${role%%=*}=$images/$name"
	done
	rm -rf ${IMGDEPLOYDIR}/${IMAGE_BASENAME}-${MACHINE}.release
	# No timestamp in a name: the files of an older release have the same ones.
	UPDATER=updater UPDATER_KEYRING="${UPDATER_KEYRING}" UPDATER_GPG_KEY="${UPDATER_GPG_KEY}" UPDATER_CREATE="${UPDATER_OPTIONS}" \
		UPDATER_DELTA_FROM="${UPDATER_DELTA_FROM}" GNUPGHOME="${UPDATER_GNUPGHOME}" \
		${UPDATER_TREE}/contrib/release.sh ${IMGDEPLOYDIR}/${IMAGE_BASENAME}-${MACHINE}.release $roles
}
do_updater_release[depends] += "updater-native:do_populate_sysroot ${@'virtual/kernel:do_deploy' if 'file:' in d.getVar('UPDATER_ROLES') else ''}"
do_updater_release[file-checksums] += "${UPDATER_TREE}/contrib/release.sh:True"
do_updater_release[vardepsexclude] += "UPDATER_GNUPGHOME UPDATER_TREE"
addtask updater_release after do_image before do_image_complete

# The name by which the boot loader's script finds the kernel of a slot.
UPDATER_KERNEL_NAME ?= "${KERNEL_IMAGETYPE}"
updater_kernel_name() {
	if [ ! -e ${IMAGE_ROOTFS}/boot/${UPDATER_KERNEL_NAME} ]; then
		ln -s ${KERNEL_IMAGETYPE} ${IMAGE_ROOTFS}/boot/${UPDATER_KERNEL_NAME}
	fi
}
ROOTFS_POSTPROCESS_COMMAND:append = " updater_kernel_name"

python () {
    for t in updater_types(d):
        if '.' in t:
            bb.fatal('UPDATER_ROLES has %s: name the image itself, such as ext4; it is compressed here' % t)
        d.appendVarFlag('do_updater_release', 'depends', ' %s:do_image_%s' % (d.getVar('PN'), t))
}
