#!/bin/bash
# Checks everything in dist/ that `make package` has built, and installs, uses, upgrades, removes and purges the .deb in a
# clean Debian root. Needs root for the chroot. The root is kept in build/package-root.tar.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
die() { echo "test-package: $*" >&2; exit 1; }
ok() { echo "ok      $*"; }
[ "$(id -u)" = 0 ] || die "the chroot needs root"
for tool in zstd mmdebstrap dpkg-deb rpm python3 readelf gpg; do command -v $tool >/dev/null || die "$tool is not installed (scripts/deps.sh)"; done
dist=$PWD/dist work=$(mktemp -d)
root=$work/root
clean() {
	mountpoint -q "$root/proc" && umount "$root/proc"
	rm -rf --one-file-system "$work"
}
trap clean EXIT
one() { [ $# = 1 ] && [ -e "$1" ] || die "expected one file, got: $*"; echo "$1"; }
version=$(basename "$(one "$dist"/updater-*.cdx.json)" .cdx.json); version=${version#updater-}
debversion=${version/-/\~} apkversion=${version/-/_} # as each packager orders a version before a release
native=$(dpkg --print-architecture)

# SHA256SUMS names everything, and nothing else.
(cd "$dist" && sha256sum --quiet -c SHA256SUMS) || die "SHA256SUMS is wrong"
diff <(cut -c67- "$dist/SHA256SUMS" | sort) <(cd "$dist" && find . -type f ! -name SHA256SUMS ! -name SHA256SUMS.asc -printf "%P\n" | sort) || die "SHA256SUMS and dist/ differ"
ok "SHA256SUMS: $(wc -l <"$dist/SHA256SUMS") files"

# One payload in every format. debs: Debian's architecture, ELF machine, RPM's, Alpine's.
listed() { find "$1" -mindepth 1 ! -type d -printf '/%P\n' -o -path '*/etc/updater/keys' -printf '/%P\n' | sort; }
formats=0
while read -r arch machine rpmarch apkarch tararch; do
	deb=$dist/updater_${debversion}_$arch.deb
	[ -e "$deb" ] || continue
	formats=$((formats + 1))
	a=$work/$arch
	mkdir -p "$a"/{deb,rpm,apk,tar}
	dpkg-deb -x "$deb" "$a/deb"
	[ "$(dpkg-deb -f "$deb" Package Version Architecture | tr '\n' ' ')" = "Package: updater Version: $debversion Architecture: $arch " ] || die "$deb: wrong control file"
	dpkg-deb --fsys-tarfile "$deb" | tar -tv | awk '$2 != "root/root" { exit 1 }' || die "$deb: a file is not root's"
	(cd "$a/deb" && dpkg-deb -I "$deb" md5sums | md5sum --quiet -c) || die "$deb: md5sums are wrong"
	readelf -h "$a/deb/usr/bin/updater" | grep -q "Machine: .*$machine" || die "$deb: the program is for another machine than $machine"
	! readelf -l "$a/deb/usr/bin/updater" | grep -q INTERP || die "$deb: the program is not static"

	rpm=$(one "$dist/updater-$debversion-1.$rpmarch.rpm")
	rpm -K --nosignature "$rpm" >/dev/null || die "$rpm: digests are wrong"
	[ "$(rpm -qp --qf '%{NAME} %{VERSION} %{ARCH} %{LICENSE}' "$rpm" 2>/dev/null)" = "updater $debversion $rpmarch Apache-2.0" ] || die "$rpm: wrong header"
	rpm --root "$a/rpm" --dbpath /var/lib/rpm --initdb
	rpm --root "$a/rpm" --dbpath /var/lib/rpm -i --nodeps --noscripts --ignorearch "$rpm" >/dev/null 2>&1
	rpm --root "$a/rpm" --dbpath /var/lib/rpm -V --nodeps updater 2>/dev/null || die "$rpm: rpm finds changed files"
	if [ "$arch" = "$native" ]; then
		"$a/rpm/usr/bin/updater" version | grep -qF "$version"
		cp -r "$a/rpm" "$work/rpmroot"
		rpm --root "$work/rpmroot" --dbpath /var/lib/rpm -e --noscripts updater 2>/dev/null
		[ ! -e "$work/rpmroot/usr/bin/updater" ] || die "rpm -e leaves the program"
	fi
	rm -rf "$a/rpm/var"

	# An .apk is gzip members: control, then data; .PKGINFO has the digest of the second.
	apk=$(one "$dist/updater_${apkversion}_$apkarch.apk")
	python3 - "$apk" "$a/apk" "$apkversion" "$apkarch" <<-'P' || die "$apk is wrong"
		import hashlib, io, sys, tarfile, zlib
		path, to, version, arch = sys.argv[1:]
		raw, members = open(path, "rb").read(), []
		while raw:
		    d = zlib.decompressobj(31)
		    out = d.decompress(raw) + d.flush()
		    members.append((raw[: len(raw) - len(d.unused_data)], out))
		    raw = d.unused_data
		(_, control), (data, payload) = members[-2:]
		info = tarfile.open(fileobj=io.BytesIO(control)).extractfile(".PKGINFO").read().decode()
		keys = dict(l.split(" = ", 1) for l in info.splitlines() if " = " in l)
		assert keys["pkgname"] == "updater" and keys["pkgver"] == version and keys["arch"] == arch, keys
		assert keys["datahash"] == hashlib.sha256(data).hexdigest(), "datahash"
		tarfile.open(fileobj=io.BytesIO(payload)).extractall(to)
	P
	for other in rpm apk; do diff -r "$a/deb" "$a/$other" >&2 || die "$arch: .deb and .$other differ"; done

	tar -xzf "$(one "$dist/updater-$version-linux-$tararch.tar.gz")" -C "$a/tar" --strip-components=1
	cmp "$a/tar/updater" "$a/deb/usr/bin/updater"
	for dir in man completions systemd; do [ -n "$(ls "$a/tar/$dir")" ] || die "the tarball has no $dir"; done
	ok "$arch: .deb, .rpm (installed and verified by rpm), .apk and tarball hold the same $(listed "$a/deb" | wc -l) files"
done <<-'T'
	amd64 X86-64 x86_64 x86_64 amd64
	arm64 AArch64 aarch64 aarch64 arm64
	armhf ARM armv7hl armv7 arm
	riscv64 RISC-V riscv64 riscv64 riscv64
T
[ "$formats" -ge 1 ] || die "no .deb of version $version in dist/"
payload=$work/$native/deb
[ -d "$payload" ] || die "no .deb for $native in dist/"

# The SBOM names exactly the modules that the program was built from.
go version -m "$payload/usr/bin/updater" | awk '$1 == "dep" { print $2 "@" $3 }' | sort >"$work/modules"
python3 - "$dist/updater-$version.cdx.json" "$version" >"$work/components" <<-'P' || die "the SBOM is wrong"
	import json, sys
	b = json.load(open(sys.argv[1]))
	assert b["bomFormat"] == "CycloneDX" and b["metadata"]["component"]["version"] == sys.argv[2]
	for c in b["components"]:
	    assert c["type"] == "library" and c["purl"].startswith("pkg:golang/"), c
	    if c["name"] != "std":
	        print(c["name"] + "@" + c["version"])
P
[ "$(wc -l <"$work/modules")" -gt 10 ] || die "the program names no modules"
diff "$work/modules" <(sort "$work/components") || die "the SBOM and the program differ"
ok "SBOM: $(wc -l <"$work/modules") modules, those of the program"

# A clean Debian.
base=build/package-root.tar
if [ ! -e "$base" ]; then
	mmdebstrap --quiet --variant=apt --include=man-db,bash-completion,gpg,gpg-agent,systemd --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
		bookworm "${base%.tar}.part.tar" http://deb.debian.org/debian
	mv "${base%.tar}.part.tar" "$base"
fi
mkdir "$root"
tar -xf "$base" -C "$root" --numeric-owner --exclude='./dev/*'
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
ln -s /proc/self/fd "$root/dev/fd"
mount -t proc proc "$root/proc"
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb MANPAGER=cat "$@"; }
files() { (cd "$root" && find . -xdev -path ./proc -prune -o -path ./var/lib/dpkg -prune -o -path ./var/cache/man -prune -o -path ./var/cache/apt -prune -o -path ./var/lib/apt -prune -o -path ./var/log -prune -o -path ./tmp -prune -o -path ./root -prune -o -path ./run -prune -o -print | sort); }
files >"$work/before"
cp "$dist/updater_${debversion}_$native.deb" "$root/tmp/updater.deb"
in_root apt-get -qq -o APT::Sandbox::User=root install /tmp/updater.deb >"$work/said" 2>&1
in_root dpkg --verify updater || die "dpkg finds changed files"
for unit in "$payload"/usr/lib/systemd/system/*; do # a service that a timer starts is not enabled
	name=$(basename "$unit" .service); grep -q '^\[Install\]' "$unit" || continue
	grep -q "systemctl enable ${name/@/@.*}" "$work/said" || die "the package does not mention $name: $(cat "$work/said")"
done
for file in docs/config.schema.json docs/operation.md examples/boot/grub/tries.cfg examples/boot/uboot/rauc.env examples/data/updater-data CHANGELOG.md; do
	cmp "$root/usr/share/doc/updater/$file" "$file" || die "$file is missing"
done
ok "installed by apt, which says which units to enable; with pages, schemas and examples"

# The release document of the programs, by the program that was installed.
in_root mkdir /tmp/dist
cp "$dist"/release.toml* "$dist"/updater-*.bmap "$dist"/updater-*.zst "$root/tmp/dist"
in_root updater release info /tmp/dist | grep -q "$version of updater" || die "the release document is wrong"
for map in "$dist"/updater-*-linux-*.bmap; do
	zstd -dqc "${map%.bmap}.zst" >"$work/program"
	in_root updater bmap info "/tmp/dist/$(basename "$map")" >/dev/null
	sha256sum "$work"/*/deb/usr/bin/updater | grep -q "^$(sha256sum <"$work/program" | cut -c1-64)" || die "$map is of no packaged program"
done
ok "release document of the programs"

in_root bash -euo pipefail -s "$version" <<-'S' || die "the installed program does not work"
	trap 'echo "in the chroot: $BASH_COMMAND: exit $?" >&2' ERR
	cd /tmp
	updater version | grep -qF "$1"
	for page in $(cd /usr/share/man; ls man*/updater* | sed 's/.*\///'); do # updater-bmap.5 -> 5 updater-bmap
		man "${page##*.}" "${page%.*}" >page.txt 2>warnings.txt || { cat warnings.txt; exit 1; }
		grep -q NAME page.txt; [ ! -s warnings.txt ] || { cat warnings.txt; exit 1; }
	done
	# The shell's completion. compopt only works at a prompt.
	bash --norc -ec 'compopt() { :; }; . /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/updater
		COMP_WORDS=(updater ins) COMP_CWORD=1 COMP_LINE="updater ins" COMP_POINT=11 COMP_TYPE=9; __start_updater; [[ ${COMPREPLY[*]} = install* ]]'
	systemd-analyze verify --man=no /usr/lib/systemd/system/updater-*.service
	systemctl enable -q updater-mark-good.service
	[ -L /etc/systemd/system/multi-user.target.wants/updater-mark-good.service ]
	systemctl disable -q updater-mark-good.service
	# A bmap of a real image, signed, checked, and refused when a byte changes.
	truncate -s 8M image.img; head -c 1M /dev/urandom | dd of=image.img bs=64K seek=10 conv=notrunc status=none
	updater bmap create -o image.img.bmap image.img
	updater bmap verify image.img.bmap image.img
	mkdir -m 700 g; export GNUPGHOME=/tmp/g
	gpg -q --batch --passphrase '' --quick-generate-key t@example.com ed25519 sign never 2>/dev/null
	gpg -q --armor --export t@example.com >/etc/updater/keys/t.asc
	gpg -q --batch --armor --detach-sign image.img.bmap
	gpgconf --kill all
	updater verify --keyring /etc/updater/keys image.img
	printf 'changed!' | dd of=image.img bs=1 seek=700000 conv=notrunc status=none
	rc=0; updater verify --keyring /etc/updater/keys image.img 2>err || rc=$?
	[ $rc = 10 ] || { echo "a changed image: exit $rc"; cat err; exit 1; }
	# The sample configuration is read as it stands: the disk is missing, not a key (exit 2).
	cp /usr/share/doc/updater/examples/config.toml /etc/updater/config.toml
	rc=0; updater status 2>err || rc=$?
	[ $rc != 0 ] && [ $rc != 2 ] || { echo "the sample configuration: exit $rc"; cat err; exit 1; }
	echo 'nosuch = 1' | cat - /etc/updater/config.toml >bad.toml
	rc=0; updater status --config bad.toml 2>err || rc=$?
	[ $rc = 2 ] || { echo "a wrong configuration: exit $rc"; cat err; exit 1; }
S
ok "used: version, man pages, completion, units, bmap create and verify, signature, sample configuration"

# Upgraded to the same and to a later version: the administrator's files stay.
in_root dpkg -i /tmp/updater.deb >/dev/null
dpkg-deb -R "$dist/updater_${debversion}_$native.deb" "$work/later"
sed -i "s/^Version: .*/&.1/" "$work/later/DEBIAN/control"
dpkg-deb -b --root-owner-group "$work/later" "$root/tmp/later.deb" >/dev/null
in_root dpkg -i /tmp/later.deb >/dev/null
[ "$(in_root dpkg-query -W -f '${Status} ${Version}' updater)" = "install ok installed $debversion.1" ] || die "the upgrade is not installed"
in_root test -s /etc/updater/keys/t.asc -a -s /etc/updater/config.toml || die "the upgrade took keys or configuration away"
ok "upgraded"

in_root dpkg -r updater 2>/dev/null >&2
in_root test ! -e /usr/bin/updater -a -s /etc/updater/keys/t.asc -a -s /etc/updater/config.toml || die "removing the package left the program, or removed the keys"
rm -r "$root/etc/updater"
in_root dpkg -P updater 2>/dev/null >&2
! in_root dpkg-query -W updater 2>/dev/null || die "dpkg still knows the package"
files | diff "$work/before" - || die "the package left something behind, or took something with it"
ok "removed and purged without a trace"

echo "NOT TESTED: .apk is read and compared, not installed: Debian has no apk"
