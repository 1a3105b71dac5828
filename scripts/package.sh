#!/bin/bash
# Builds a release in dist/: .deb, .rpm, .apk, a tarball and the packed program for each of ARCHES, a release document of the programs, an SBOM, and
# SHA256SUMS; document and sums are signed if KEY is set.
# The same commit gives the same bytes. The version is that of cmd/updater/version.go; make package sets COMMIT and STAMP.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMMIT:?make package sets it}" "${STAMP:?make package sets it}"
ARCHES=${ARCHES:-amd64 arm64 arm riscv64}
version=$(sed -n 's/^const version = "\(.*\)"$/\1/p' cmd/updater/version.go)
[ -z "${KEY:-}" ] || gpg --batch --list-secret-keys "$KEY" >/dev/null # before anything is built
epoch=$(date -d "$STAMP" +%s)
export CGO_ENABLED=0 SOURCE_DATE_EPOCH=$epoch LC_ALL=C TZ=UTC
umask 022
rm -rf dist build/package
mkdir -p dist build/package build/tools
# packaging/go.mod pins the tools, apart from the modules of the program.
tool() { (cd packaging && go build -o "../build/tools/$1" "$2"); }
tool nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm
tool cyclonedx-gomod github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
go build -o build/tools/updater ./cmd/updater # of this host
go run -tags docs ./cmd/updater man-pages build/package
# The files of every package in /usr/share/doc/updater. Modes and times are those of the release, independent of the umask of the tree.
doc=build/package/doc
mkdir "$doc"
cp -r README.md CHANGELOG.md SECURITY.md docs examples "$doc"
cp packaging/config.toml "$doc/examples"
settle() { chmod -R u=rwX,go=rX "$1"; find "$1" -exec touch -h -d "@$epoch" {} +; }
settle "$doc"
for arch in $ARCHES; do
	stage=build/package/stage
	rm -rf "$stage"
	mkdir -p "$stage"
	make -s "bin/$arch/updater" ARCH="$arch" COMMIT="$COMMIT" STAMP="$STAMP"
	cp "bin/$arch/updater" "$stage"
	cp -r build/package/man build/package/completions "$stage"
	cp -rp "$doc" "$stage/doc"
	name=$arch; [ "$arch" = arm ] && name=arm7
	for format in deb rpm apk; do
		# The version that sorts before 0.2.0 is 0.2.0~pre for dpkg and rpm, and 0.2.0_pre for apk.
		separator='~'; [ $format = apk ] && separator=_
		ARCH=$name VERSION=${version/-/$separator} build/tools/nfpm package --config packaging/nfpm.yaml --packager $format --target dist/ >build/package/log || { cat build/package/log >&2; exit 1; }
	done
	[ "$arch" = "${ARCHES%% *}" ] && cp "$stage/updater" build/package/updater
	tree=build/package/updater-$version-linux-$arch
	mkdir -p "$tree"
	cp -r "$stage"/* LICENSE packaging/systemd "$tree"
	settle "$tree"
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -C build/package -c "$(basename "$tree")" | gzip -n -9 >"dist/$(basename "$tree").tar.gz"
done
# The linked modules, read from the program.
build/tools/cyclonedx-gomod bin -json -noserial -notimestamp -version "$version" -output "dist/updater-$version.cdx.json" build/package/updater 2>/dev/null
# The release document of the programs: each is the image of a role named after its architecture. The rollback index is the version, 0.2.0 as 200.
programs=()
IFS=.- read -r major minor patch _ <<<"$version"
for arch in $ARCHES; do
	program=updater-$version-linux-$arch
	cp "bin/$arch/updater" "dist/$program"
	(cd dist && ../build/tools/updater bmap create -o "$program.bmap" "$program" && ../build/tools/updater pack --level 19 -o "$program.zst" "$program" && rm "$program") >/dev/null
	programs+=("$arch=$program.zst")
done
(cd dist && ../build/tools/updater release create --product updater --version "$version" --rollback-index $((major * 10000 + minor * 100 + patch)) "${programs[@]}") >/dev/null
[ -z "${KEY:-}" ] || gpg --batch --yes --armor --detach-sign --local-user "$KEY" -o dist/release.toml.asc dist/release.toml
scripts/sums.sh dist
