SUMMARY = "Configuration and certificates of updater for this machine"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"
PACKAGE_ARCH = "${MACHINE_ARCH}"
INHIBIT_DEFAULT_DEPS = "1"

# Files: docs/config.md has every key; the certificates of the keys that may sign updates (gpg --export).
UPDATER_CONFIG ?= ""
UPDATER_KEYRING ?= ""

S = "${UNPACKDIR}"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[file-checksums] = "${@' '.join(f + ':True' for f in (d.getVar('UPDATER_CONFIG') + ' ' + d.getVar('UPDATER_KEYRING')).split())}"
do_install() {
	if [ -z "${UPDATER_CONFIG}" ] || [ -z "${UPDATER_KEYRING}" ]; then
		bbfatal "UPDATER_CONFIG and UPDATER_KEYRING are needed: a device without a certificate installs nothing"
	fi
	install -D -m 0644 ${UPDATER_CONFIG} ${D}${sysconfdir}/updater/config.toml
	install -d ${D}${sysconfdir}/updater/keys
	install -m 0644 ${UPDATER_KEYRING} ${D}${sysconfdir}/updater/keys/
}
FILES:${PN} = "${sysconfdir}/updater"
