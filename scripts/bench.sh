#!/bin/bash
# Runs the benchmarks of scripts/bench, all or the named ones. Each compares the program with its peers in the same run and
# prints ratios. Peers that are not installed are listed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin CGO_ENABLED=0
BENCH_WORK=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
export BENCH_WORK
trap 'rm -rf "$BENCH_WORK"' EXIT
go build -trimpath -ldflags '-s -w' -o "$BENCH_WORK/updater" ./cmd/updater
echo "$(nproc) CPUs, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg)"
for file in scripts/bench/*.sh; do
	name=$(basename "$file" .sh)
	[ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
	echo "== $name"
	bash "$file"
done
