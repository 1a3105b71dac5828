#!/bin/bash
# Draws docs/drawings/*.dot with Graphviz, and the plots. Each .svg ends with the sha256 of its source, which internal/docs compares.
set -euo pipefail
"$(dirname "$0")/plots.sh"
cd "$(dirname "$0")/../docs/drawings"
command -v dot >/dev/null || { echo 'missing; on Debian: apt-get install graphviz' >&2; exit 1; }
for source in *.dot; do
	{ dot -Tsvg "$source"; echo "<!-- $(sha256sum "$source") -->"; } >"${source%.dot}.svg"
done
