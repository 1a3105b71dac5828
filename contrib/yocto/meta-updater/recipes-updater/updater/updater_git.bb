SUMMARY = "Installs a signed image into the inactive A/B slot"
DESCRIPTION = "One static program: it verifies a GPG-signed block map, writes and reads back, and switches the boot slot last."
SECTION = "base"

inherit updater-source systemd

do_compile() {
	updater_make bin/${HOST_GOARCH}/updater
}

do_install() {
	install -D -m 0755 ${S}/bin/${HOST_GOARCH}/updater ${D}${bindir}/updater
}

do_install:append:class-target() {
	install -d ${D}${systemd_system_unitdir} ${D}${sysconfdir}/updater/keys
	install -m 0644 ${S}/packaging/systemd/* ${D}${systemd_system_unitdir}/
}

SYSTEMD_SERVICE:${PN} = "updater-mark-good.service"
FILES:${PN} += "${systemd_system_unitdir}"
RRECOMMENDS:${PN}:append:class-target = " updater-config"
# Go's linker strips it, and a static program has no hash table.
INSANE_SKIP:${PN} += "already-stripped ldflags"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"

BBCLASSEXTEND = "native"
