#!/bin/bash
# Builds a Debian slot image with mkosi and makes a signed update of it. Needs root and the network.
#
#   contrib/mkosi/build.sh CONFIG KEYRING        with UPDATER_GPG_KEY as for contrib/release-image.sh
set -euo pipefail
config=$(realpath "${1:?usage: build.sh CONFIG KEYRING}") keyring=$(realpath "${2:?usage: build.sh CONFIG KEYRING}")
cd "$(dirname "$0")"
top=$(realpath ../..)
make -s -C "$top" build
extra=mkosi.output/extra
rm -rf mkosi.output
mkdir -p "$extra/usr/bin" "$extra/etc/updater/keys" "$extra/usr/lib/systemd/system" "$extra/etc/systemd/system/multi-user.target.wants"
install -m 0755 "$top/bin/updater" "$extra/usr/bin/"
install -m 0644 "$config" "$extra/etc/updater/config.toml"
install -m 0644 "$keyring" "$extra/etc/updater/keys/"
install -m 0644 "$top"/packaging/systemd/* "$extra/usr/lib/systemd/system/"
ln -s /usr/lib/systemd/system/updater-mark-good.service "$extra/etc/systemd/system/multi-user.target.wants/"
mkosi --force build
image=$(find mkosi.output -maxdepth 1 -type f -name 'rootfs*.raw' -o -maxdepth 1 -type f -name 'rootfs*.squashfs')
UPDATER=$top/bin/updater UPDATER_KEYRING=${UPDATER_KEYRING:-$keyring} "$top/contrib/release-image.sh" "$image"
ls -l mkosi.output
