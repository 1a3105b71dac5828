#!/bin/sh
# BR2_ROOTFS_POST_IMAGE_SCRIPT: makes signed updates of the images that Buildroot has made. Buildroot calls it with the
# folder of the images. Needs host-updater (BR2_PACKAGE_HOST_UPDATER is built when the package is chosen).
#
#   UPDATER_IMAGES    names in that folder (default: rootfs.ext4, or what rootfs.ext2 is a link to)
#   and what contrib/release-image.sh takes: UPDATER_GPG_KEY, UPDATER_KEYRING, UPDATER_CREATE, GNUPGHOME
set -eu
images=${1:?Buildroot gives the folder of the images}
here=$(dirname "$0")
export UPDATER="${UPDATER:-${HOST_DIR:+$HOST_DIR/bin/}updater}"
for name in ${UPDATER_IMAGES:-rootfs.ext4}; do
	# rootfs.ext4 is a link to rootfs.ext2; the update keeps the name that was asked for.
	"$here/../../release-image.sh" "$images/$name" "$images"
done
