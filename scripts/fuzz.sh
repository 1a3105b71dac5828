#!/bin/bash
# Runs every fuzz target for the given time (default 15s). Minimizing an interesting input is kept short: it may take the whole time, and
# then nothing is fuzzed.
set -euo pipefail
for file in $(grep -rl '^func Fuzz' --include='*_test.go' --exclude-dir=build . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${1:-15s}" -fuzzminimizetime 10x
	done
done
