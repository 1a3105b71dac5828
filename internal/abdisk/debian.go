package abdisk

import "context"

// debianScript builds the base system; each slot image adds its files to it.
const debianScript = `
tar=$1
rm -f "$tar.tmp.tar"
mmdebstrap --quiet --variant=minbase --include=systemd-sysv \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/i18n/*' \
	--customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/log/* "$1"/usr/share/zoneinfo' \
	--customize-hook=': >"$1"/etc/machine-id' --customize-hook='echo demo >"$1"/etc/hostname' \
	bookworm "$tar.tmp.tar" http://deb.debian.org/debian
mv "$tar.tmp.tar" "$tar"
`

// DebianRoot makes a minimal Debian bookworm with systemd (mmdebstrap, without documentation and translations) and returns the path of its
// tar archive. It needs the network the first time, and root or unprivileged user namespaces.
func (b *Builder) DebianRoot(ctx context.Context) (string, error) {
	tar := b.path("debian.tar")
	return tar, b.cached(tar, func() error { return b.mmdebstrap(ctx, debianScript, tar) }, debianScript)
}

// rootScript unpacks packages and their dependencies, without configuring them.
const rootScript = `
tar=$1
rm -f "$tar.tmp.tar"
mmdebstrap --quiet --variant=extract --skip=output/dev --include="$2" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
	bookworm "$tar.tmp.tar" http://deb.debian.org/debian
mv "$tar.tmp.tar" "$tar"
`

// Root unpacks Debian packages, separated by commas, with their dependencies for slots of the kind Bare, and returns the path of the tar
// archive. No maintainer script runs: users, links and enabled units are left to the slot. Its requirements are those of DebianRoot.
func (b *Builder) Root(ctx context.Context, name, packages string) (string, error) {
	tar := b.path("root-" + name + ".tar")
	return tar, b.cached(tar, func() error { return b.mmdebstrap(ctx, rootScript, tar, packages) }, rootScript, packages)
}

// mmdebstrap runs a script that calls it. For a plain user it makes its own user namespace.
func (b *Builder) mmdebstrap(ctx context.Context, script string, args ...string) error {
	_, err := command{dir: b.Dir}.run(ctx, "sh", append([]string{"-euc", script, "sh"}, args...)...)
	return err
}

// masked are Debian's units that a read-only slot without network, users and login does not need; each costs boot time without KVM.
var masked = []string{
	"getty.target", "console-getty.service", "serial-getty@ttyS0.service", "getty@tty1.service", "apt-daily.timer", "apt-daily-upgrade.timer",
	"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer",
	"systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-journal-flush.service", "systemd-journal-catalog-update.service",
	"systemd-random-seed.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-update-done.service",
	"systemd-sysctl.service", "systemd-sysusers.service", "systemd-firstboot.service", "systemd-binfmt.service", "systemd-logind.service",
	"systemd-user-sessions.service", "systemd-pstore.service", "systemd-machine-id-commit.service", "systemd-remount-fs.service",
	"systemd-ask-password-wall.path", "systemd-ask-password-console.path", "systemd-networkd.service", "systemd-boot-system-token.service",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
	"sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "remote-fs.target",
	"modprobe@.service", "kmod-static-nodes.service",
}

const (
	unitMarkGood = `[Unit]
Description=Mark the booted slot good
After=basic.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/demo/mark-good

[Install]
WantedBy=multi-user.target
`
	unitAct = `[Unit]
Description=Run the action of demo.act= on the kernel command line
After=updater-mark-good.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/demo/act

[Install]
WantedBy=multi-user.target
`
	// The driver replaces GRUB's countdown with systemd's: a hang of PID 1 or of the kernel still ends in a reset.
	confWatchdog = "[Manager]\nRuntimeWatchdogSec=30\nRebootWatchdogSec=2min\n"
	confJournal  = "[Journal]\nStorage=volatile\n"
	confModules  = "lpc_ich\niTCO_wdt\n"
)

func addUnits(t tree) {
	const system = "etc/systemd/system/"
	for _, u := range masked {
		t.symlink(system+u, "/dev/null")
	}
	t.file(system+"updater-mark-good.service", unitMarkGood)
	t.file(system+"demo-act.service", unitAct)
	t.symlink(system+"multi-user.target.wants/updater-mark-good.service", "../updater-mark-good.service")
	t.symlink(system+"multi-user.target.wants/demo-act.service", "../demo-act.service")
	t.symlink(system+"default.target", "/lib/systemd/system/multi-user.target")
	t.file("etc/systemd/system.conf.d/watchdog.conf", confWatchdog)
	t.file("etc/systemd/journald.conf.d/volatile.conf", confJournal)
	t.file("etc/modules-load.d/watchdog.conf", confModules)
}
