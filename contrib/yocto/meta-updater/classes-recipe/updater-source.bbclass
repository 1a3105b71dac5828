# Where the source is, and how Go builds it: statically, by its own linker, without the target's C toolchain and library, and without the network.
HOMEPAGE = "file://${UPDATER_TREE}/README.md"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The source is the commit that this layer is checked out at, so that it and the list of modules cannot differ. To take it from a server:
# UPDATER_REPO = "git://HOST/updater.git;protocol=https" and UPDATER_REVISION, the same commit.
UPDATER_REPO ?= "git://${UPDATER_TREE};protocol=file"
UPDATER_REVISION ?= "${@bb.process.run(['git', '-C', d.getVar('UPDATER_TREE'), 'rev-parse', 'HEAD'])[0].strip()}"
SRCREV = "${UPDATER_REVISION}"
SRC_URI = "${UPDATER_REPO};nobranch=1;destsuffix=updater"
PV = "0.2.0+git"
S = "${UNPACKDIR}/updater"

# The modules, fetched by BitBake with checksums of their own and laid out as Go's proxy serves them. This works in scarthgap, too.
UPDATER_LICENSES = "${UNPACKDIR}/licenses"
require recipes-updater/updater/updater-modules.inc
def updater_modules(d):
    uris = []
    for name, sha256 in (m.split('=') for m in d.getVar('UPDATER_MODULES').split()):
        uris.append('https://proxy.golang.org/%s;downloadfilename=gomod/%s;subdir=gomod/%s;unpack=0;sha256sum=%s' % (name, name, os.path.dirname(name), sha256))
    return ' '.join(uris)
SRC_URI += "${@updater_modules(d)}"

# blacksail requires SPDX expressions, which earlier releases do not know.
LICENSE = "${@(' AND ' if 'blacksail' in d.getVar('LAYERSERIES_CORENAMES') else ' & ').join(d.getVar('UPDATER_LICENSE').split())}"
# Their texts, for LIC_FILES_CHKSUM, license.manifest and SPDX.
python updater_unpack_licenses() {
    import zipfile
    for name in (m.split('=')[0] for m in d.getVar('UPDATER_MODULES').split()):
        if name.endswith('.zip'):
            with zipfile.ZipFile(os.path.join(d.getVar('UNPACKDIR'), 'gomod', name)) as z:
                wanted = [n for n in z.namelist() if '/' + n + ';' in d.getVar('LIC_FILES_CHKSUM')]
                z.extractall(d.getVar('UPDATER_LICENSES'), wanted)
}
do_unpack[postfuncs] += "updater_unpack_licenses"

inherit goarch
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS += "updater-go-native"
PATH:prepend = "${STAGING_LIBDIR_NATIVE}/updater-go/bin:"
export GOROOT = "${STAGING_LIBDIR_NATIVE}/updater-go"
export GOTOOLCHAIN = "local"
export GOENV = "off"
export GOPROXY = "file://${UNPACKDIR}/gomod"
# go.sum in the source has the checksum of every module.
export GOSUMDB = "off"
export GOPATH = "${WORKDIR}/go"
export GOCACHE = "${WORKDIR}/go-cache"
export GOTMPDIR = "${WORKDIR}/go-tmp"
export GOFLAGS = "-modcacherw"
export GOARM = "${@d.getVar('HOST_GOARM') or '7'}"
do_compile[dirs] += "${GOTMPDIR}"

# The Makefile has the flags that keep the program small and reproducible.
updater_make() {
	oe_runmake -C ${S} ARCH=${HOST_GOARCH} "$@"
}
