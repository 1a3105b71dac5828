#!/bin/bash
# sums.sh FOLDER: SHA256SUMS of all its files, signed by KEY if that is set. The signature is the only file that is not in SHA256SUMS.
set -euo pipefail
cd "$1"
rm -f SHA256SUMS SHA256SUMS.asc
sha256sum -- * >SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
cat SHA256SUMS
[ -z "${KEY:-}" ] || gpg --batch --yes --armor --detach-sign --local-user "$KEY" -o SHA256SUMS.asc SHA256SUMS
