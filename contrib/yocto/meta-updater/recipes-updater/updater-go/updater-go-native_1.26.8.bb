SUMMARY = "Go for updater alone"
DESCRIPTION = "go.mod asks for Go 1.26, and releases before wrynose have an older one. This is Go's own build, as its module proxy serves it to \
every go command (go.dev/doc/toolchain), beside the Go of the distribution: no other recipe sees it."
HOMEPAGE = "https://go.dev"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=7998cb338f82d15c0eff93b7004d272a"
CVE_PRODUCT = "golang:go"

inherit goarch native

# go mod download -json golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64 compares the file with sum.golang.org; these sums are from sha256sum.
UPDATER_GO = "v0.0.1-go${PV}.${BUILD_GOOS}-${BUILD_GOARCH}"
SRC_URI = "https://proxy.golang.org/golang.org/toolchain/@v/${UPDATER_GO}.zip;name=${BUILD_GOARCH};downloadfilename=golang-toolchain-${UPDATER_GO}.zip;subdir=go"
SRC_URI[amd64.sha256sum] = "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7"
SRC_URI[arm64.sha256sum] = "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99"

S = "${UNPACKDIR}/go/golang.org/toolchain@${UPDATER_GO}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install() {
	install -d ${D}${libdir}/updater-go
	cp -R ${S}/. ${D}${libdir}/updater-go
	# Zip files of modules have no modes and no go.mod below their root.
	chmod 0755 ${D}${libdir}/updater-go/bin/* ${D}${libdir}/updater-go/pkg/tool/*/*
	find ${D}${libdir}/updater-go -name _go.mod -execdir mv {} go.mod \;
}
# Objects of other architectures in the test data of Go.
INSANE_SKIP += "arch already-stripped"
INHIBIT_SYSROOT_STRIP = "1"
