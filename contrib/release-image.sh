#!/bin/sh
# Makes an update of a disk or file system image: compresses it, creates the block map, signs the map, and verifies the result
# with the certificate that the devices trust. The build systems in contrib/ call it; it also runs by hand.
#
#   release-image.sh IMAGE [OUTPUT-FOLDER]
#
# From the environment:
#   UPDATER           the program (default: updater)
#   UPDATER_KEYRING   certificate that the devices trust; the result is checked with it
#   UPDATER_GPG_KEY   key that signs (a fingerprint or name); empty: no signature is made, sign elsewhere
#   UPDATER_CREATE    further options of updater bmap create, such as "--product acme-gw --rollback-index 17"
#   UPDATER_PACK      1 (default): updater pack, a frame for each range; 0: zstd
#   GNUPGHOME         gpg's folder, see gpg(1)
#
# OUTPUT-FOLDER (default: that of the image) gets IMAGE.zst, IMAGE.bmap and IMAGE.bmap.asc, moved to their names only
# when all are complete. The same image, options and SOURCE_DATE_EPOCH give the same .zst and .bmap.
set -eu
image=${1:?usage: release-image.sh IMAGE [OUTPUT-FOLDER]}
out=${2:-$(dirname "$image")}
updater=${UPDATER:-updater}
name=$(basename "$image")
if [ -n "${UPDATER_GPG_KEY:-}" ] && [ -z "${UPDATER_KEYRING:-}" ]; then
	echo "release-image.sh: UPDATER_KEYRING is not set: the signature cannot be checked as a device would" >&2
	exit 2
fi
work=$(mktemp -d "$out/.release.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# shellcheck disable=SC2086 # the options are several words
"$updater" bmap create ${UPDATER_CREATE:-} -o "$work/$name.bmap" "$image"
if [ "${UPDATER_PACK:-1}" = 1 ]; then
	"$updater" pack --bmap "$work/$name.bmap" -o "$work/$name.zst" "$image"
else
	zstd -q -T0 -f -o "$work/$name.zst" "$image"
fi
if [ -n "${UPDATER_GPG_KEY:-}" ]; then
	gpg --batch --yes --armor --detach-sign --local-user "$UPDATER_GPG_KEY" -o "$work/$name.bmap.asc" "$work/$name.bmap"
	"$updater" verify --keyring "$UPDATER_KEYRING" --bmap "$work/$name.bmap" "$work/$name.zst"
fi
for file in "$work"/*; do
	sync "$file"
done
rm -f "$out/$name.bmap.asc" # of another map
mv "$work"/* "$out/"
