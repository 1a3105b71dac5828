#!/bin/sh
# Makes a signed release: packs the images, writes their block maps and the document that names them, signs it, makes deltas, and verifies the
# whole with the certificate that the devices trust. The build systems in contrib/ call it; it also runs by hand (docs/releases.md).
#
#   release.sh OUTPUT-FOLDER ROLE[@SLOT]=IMAGE...
#
# UPDATER, UPDATER_KEYRING, UPDATER_GPG_KEY and GNUPGHOME are those of release-image.sh; further variables:
#   UPDATER_CREATE       options of updater release create, such as "--product acme-gw --version 2.1 --rollback-index 17"
#   UPDATER_DELTA_FROM   folders of older releases, whose images have the same names: a delta from each
#
# OUTPUT-FOLDER must not exist; it gets its name when it is complete. The same images, options and SOURCE_DATE_EPOCH give the same bytes.
set -eu
out=${1:?usage: release.sh OUTPUT-FOLDER ROLE[@SLOT]=IMAGE...}
shift
updater=${UPDATER:-updater}
if [ -n "${UPDATER_GPG_KEY:-}" ] && [ -z "${UPDATER_KEYRING:-}" ]; then
	echo "release.sh: UPDATER_KEYRING is not set: the signature cannot be checked as a device would" >&2
	exit 2
fi
[ ! -e "$out" ] || { echo "release.sh: $out exists" >&2; exit 2; }
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
roles=
for role; do
	image=${role#*=} name=$(basename "${role#*=}")
	"$updater" bmap create -o "$work/$name.bmap" "$image"
	"$updater" pack --bmap "$work/$name.bmap" -o "$work/$name.zst" "$image"
	for old in ${UPDATER_DELTA_FROM:-}; do
		[ ! -e "$old/$name.zst" ] || "$updater" delta create --from "$old/$name.zst" "$work/$name.zst"
	done
	roles="$roles ${role%%=*}=$work/$name.zst"
done
# shellcheck disable=SC2086 # the options are several words, and so are the roles
eval '"$updater" release create '"${UPDATER_CREATE:-}"' -o "$work/release.toml" $roles'
if [ -n "${UPDATER_GPG_KEY:-}" ]; then
	gpg --batch --yes --armor --detach-sign --local-user "$UPDATER_GPG_KEY" "$work/release.toml"
	"$updater" release verify --keyring "$UPDATER_KEYRING" "$work/release.toml"
fi
chmod 755 "$work"
mv "$work" "$out"
