# Creates, verifies and copies maps with bmaptool and with updater, with a warm page cache, best of three; then Go's benchmarks.
set -euo pipefail
cd "$BENCH_WORK"
updater=$BENCH_WORK/updater

# best COMMAND... prints the shortest of three times in seconds.
best() {
	local t best=
	for _ in 1 2 3; do
		t=$(TIMEFORMAT=%R; { time "$@" >/dev/null 2>&1; } 2>&1)
		best=$(awk -v a="$t" -v b="${best:-$t}" 'BEGIN { print a < b ? a : b }')
	done
	echo "$best"
}
# row WHAT OURS PEER-NAME PEER prints two times and their ratio; a higher ratio means that updater is faster.
row() {
	awk -v w="$1" -v o="$2" -v n="$3" -v p="$4" 'BEGIN {
		printf "%-44s updater %6.2f s", w, o
		if (p) printf "   %s %6.2f s   %.2f x", n, p, p / o
		print ""
	}'
}

mib=${BENCH_MIB:-1024} # of an image; a quarter of the sparse one is data
head -c "${mib}M" /dev/urandom > full.img
truncate -s "${mib}M" sparse.img
for i in $(seq 0 32 $((mib - 1))); do
	dd if=full.img of=sparse.img bs=1M count=8 seek="$i" skip="$i" conv=notrunc status=none
done
sync full.img sparse.img
peer=$(command -v bmaptool) || echo "bmaptool is not installed, so there is nothing to compare with"
for image in full sparse; do
	$updater bmap create -o $image.img.bmap $image.img
	row "create, $mib MiB, $image" "$(best $updater bmap create -o o.bmap $image.img)" bmaptool "$([ -z "$peer" ] && echo 0 || best bmaptool create -o t.bmap $image.img)"
	row "verify (copy to /dev/null), $mib MiB, $image" "$(best $updater bmap verify $image.img.bmap $image.img)" bmaptool \
		"$([ -z "$peer" ] && echo 0 || best bmaptool copy --no-sig-verify --bmap $image.img.bmap $image.img /dev/null)"
	rm -f o.img t.img
	row "copy to a file, read back, $mib MiB, $image" "$(best $updater bmap copy --allow-unsigned $image.img o.img)" bmaptool \
		"$([ -z "$peer" ] && echo 0 || best bmaptool copy --no-sig-verify --bmap $image.img.bmap $image.img t.img)"
done
rm -f ./*.img
cd "$OLDPWD"
go test ./bmap -run '^$' -bench . -benchtime 2s | grep ^Bench
