#!/bin/bash
# Measures costs and gains of the largest range of a bmap, on a Debian root file system and its next version: the same image
# with more packages, as a file system that was updated in place and as one made anew. Needs
# root, mmdebstrap and the network; takes minutes. The table is in docs/design.md.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'umount "$work/mnt" 2>/dev/null || true; rm -rf "$work"' EXIT
more=openssh-server,vim-tiny,nginx-light,libcurl4,python3-minimal
for v in old new; do
	mmdebstrap --quiet --variant=important --include="$([ $v = new ] && echo $more || true)" \
		--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' bookworm "$work/$v" http://deb.debian.org/debian
	truncate -s 1G "$work/$v.img"
	id=11111111-2222-3333-4444-555555555555
	mke2fs -q -t ext4 -U $id -E hash_seed=$id -d "$work/$v" "$work/$v.img"
done
cp --sparse=always "$work/old.img" "$work/updated.img"
mkdir "$work/mnt"
mount -o loop "$work/updated.img" "$work/mnt"
cp -au "$work/new/." "$work/mnt/"
umount "$work/mnt"
echo "updated in place:"
go run ./bench/maxrange "$work/updated.img" "$work/old.img"
echo "made anew:"
go run ./bench/maxrange "$work/new.img" "$work/old.img"
