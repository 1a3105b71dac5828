# Where the source is, and how Go builds it: statically, by its own linker, without the target's C toolchain and library.
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
HOMEPAGE = "file://${UPDATER_TREE}/README.md"

UPDATER_REPO ?= "git://${UPDATER_TREE};protocol=file"
UPDATER_BRANCH ?= "main"
SRC_URI = "${UPDATER_REPO};branch=${UPDATER_BRANCH}"
SRCREV ?= "${AUTOREV}"
PV = "0.0+git"

inherit goarch
DEPENDS += "go-native"
# Go fetches the modules that go.sum names, with their checksums.
do_compile[network] = "1"
export GOPATH = "${WORKDIR}/go"
export GOCACHE = "${WORKDIR}/go-cache"
export GOFLAGS = "-modcacherw"
export GOTOOLCHAIN = "local"
export GOARM = "${@d.getVar('HOST_GOARM') or '7'}"

# The Makefile has the flags that keep the program small and reproducible.
updater_make() {
	oe_runmake -C ${S} ARCH=${HOST_GOARCH} "$@"
}
