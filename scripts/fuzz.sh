#!/bin/bash
# Runs every fuzz target for the given time, such as 8s. Minimizing an interesting input is kept short: it could take the whole time, and
# then nothing is fuzzed. If a worker is still busy when the time is over, go test may fail with "context deadline exceeded" and no input
# (go.dev/issue/48591): such a target runs once more.
set -euo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
fuzz() { go test "$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10x >"$log" 2>&1; }
time=$1
for file in $(grep -rl '^func Fuzz' --include='*_test.go' --exclude-dir=build . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		status=0
		fuzz "$(dirname "$file")" "$target" || status=$?
		if [ $status != 0 ] && grep -q '^ *context deadline exceeded$' "$log" && ! grep -q 'Failing input' "$log"; then
			status=0
			fuzz "$(dirname "$file")" "$target" || status=$?
		fi
		cat "$log"
		[ $status = 0 ] || exit $status
	done
done
