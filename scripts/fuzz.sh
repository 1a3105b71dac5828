#!/bin/bash
# Runs every fuzz target for the given time (default 15s).
set -euo pipefail
for file in $(grep -rl '^func Fuzz' --include='*_test.go' --exclude-dir=build . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${1:-15s}"
	done
done
