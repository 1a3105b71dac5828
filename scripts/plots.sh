#!/bin/bash
# Draws tables of docs/performance.md into a folder, docs/drawings by default; internal/docs compares.
set -euo pipefail
into=$(realpath "${1:-"$(dirname "$0")/../docs/drawings"}")
cd "$(dirname "$0")"
page=../docs/performance.md
awk -v table='| form | command' -v labels=2 -v title='Copying to memory, MB of mapped data a second: more is better' -f plot.awk $page >"$into/copy.svg"
awk -v table='| made anew, ext4' -v labels=1 -v title='MB that a device downloads for a month of security updates: less is better' -f plot.awk $page >"$into/delta.svg"
awk -v table='| form, read back' -v title='Resident memory of an install over its time, MiB' -f plotlines.awk $page >"$into/memory.svg"
