# Makes updates of an image: for each of UPDATER_IMAGE_TYPES, IMAGE.TYPE.zst, IMAGE.TYPE.bmap and IMAGE.TYPE.bmap.asc beside
# it. Inherit it in an image, or for all of them with IMAGE_CLASSES += "updater-image".

UPDATER_IMAGE_TYPES ?= "ext4"
UPDATER_PRODUCT ?= "${MACHINE}"
UPDATER_VERSION ?= "${DISTRO_VERSION}"
UPDATER_ROLLBACK_INDEX ?= ""
UPDATER_ROLE ?= ""
# The key that signs, and a certificate that the devices trust. Without a key sign later: gpg --armor --detach-sign.
UPDATER_GPG_KEY ?= ""
UPDATER_KEYRING ?= ""
UPDATER_GNUPGHOME ?= "${@os.environ.get('GNUPGHOME') or os.path.expanduser('~/.gnupg')}"

IMAGE_FSTYPES += "${UPDATER_IMAGE_TYPES}"

UPDATER_CREATE = "--product '${UPDATER_PRODUCT}' --version '${UPDATER_VERSION}'"
UPDATER_CREATE .= "${@' --rollback-index ' + d.getVar('UPDATER_ROLLBACK_INDEX') if d.getVar('UPDATER_ROLLBACK_INDEX') else ''}"
UPDATER_CREATE .= "${@' --role ' + d.getVar('UPDATER_ROLE') if d.getVar('UPDATER_ROLE') else ''}"

do_updater_release() {
	for type in ${UPDATER_IMAGE_TYPES}; do
		rm -rf ${WORKDIR}/updater-release
		mkdir -p ${WORKDIR}/updater-release
		UPDATER=updater UPDATER_KEYRING="${UPDATER_KEYRING}" UPDATER_GPG_KEY="${UPDATER_GPG_KEY}" UPDATER_CREATE="${UPDATER_CREATE}" \
			GNUPGHOME="${UPDATER_GNUPGHOME}" ${UPDATER_TREE}/contrib/release-image.sh ${IMGDEPLOYDIR}/${IMAGE_NAME}.$type ${WORKDIR}/updater-release
		for file in ${WORKDIR}/updater-release/*; do
			name=$(basename $file)
			install -m 0644 $file ${IMGDEPLOYDIR}/$name
			if [ -n "${IMAGE_LINK_NAME}" ] && [ "${IMAGE_LINK_NAME}" != "${IMAGE_NAME}" ]; then
				ln -sf $name ${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.${name#${IMAGE_NAME}.}
			fi
		done
	done
}
do_updater_release[depends] += "updater-native:do_populate_sysroot"
do_updater_release[file-checksums] += "${UPDATER_TREE}/contrib/release-image.sh:True"
do_updater_release[vardepsexclude] += "UPDATER_GNUPGHOME UPDATER_TREE"
addtask updater_release after do_image before do_image_complete

python () {
    types = d.getVar('UPDATER_IMAGE_TYPES').split()
    for t in types:
        if '.' in t:
            bb.fatal('UPDATER_IMAGE_TYPES has %s: name the image itself, such as ext4 or wic; it is compressed here' % t)
        d.appendVarFlag('do_updater_release', 'depends', ' %s:do_image_%s' % (d.getVar('PN'), t))
}
