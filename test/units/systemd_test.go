//go:build vm

package units

import (
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"updater/internal/abdisk"
)

// systemdPackages are the packages that a slot with systemd unpacks; the data script makes identities with ssh-keygen.
const systemdPackages = "systemd-sysv,kmod,dbus,dash,coreutils,grep,sed,base-files,busybox-static,openssh-client,socat"

// systemdFiles are the files of a slot beside those of the package: a network without DHCP, and a journal that is copied to the console.
var systemdFiles = map[string]string{
	"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:101:101::/:/bin/false\n", "etc/group": "root:x:0:\nmessagebus:x:101:\n",
	"etc/nsswitch.conf": "passwd: files\ngroup: files\n", "etc/fstab": "tmpfs /tmp tmpfs defaults 0 0\n",
	"etc/modules-load.d/net.conf":             "virtio_net\n",
	"etc/systemd/journald.conf.d/test.conf":   "[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=info\n",
	"etc/systemd/system/network-test.service": networkUnit, "etc/systemd/system/probe.service": probeUnit,
	// The real timer waits for 10 minutes, and as long as 4 hours.
	"etc/systemd/system/updater-update.timer.d/test.conf": "[Timer]\nOnBootSec=\nOnBootSec=1s\nOnUnitInactiveSec=5s\nRandomizedDelaySec=0\nAccuracySec=1s\n",
}

const (
	networkUnit = `[Unit]
DefaultDependencies=no
After=systemd-modules-load.service
Before=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/busybox ip link set eth0 up
ExecStart=/usr/bin/busybox ip addr add 10.0.2.15/24 dev eth0
ExecStart=/usr/bin/busybox ip route add default via 10.0.2.2

[Install]
WantedBy=network-online.target
`
	probeUnit = `[Service]
ExecStart=/usr/lib/test/probe

[Install]
WantedBy=multi-user.target
`
	// systemdSetup enables the units as an integrator does, and leaves out units that cost time and are of no use to a slot without login.
	systemdSetup = `
rm -rf usr/bin/dpkg* usr/bin/sftp usr/bin/scp usr/lib/systemd/systemd-networkd usr/lib/*/libp11-kit* usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/perl5 usr/share/i18n usr/lib/*/gconv usr/lib/openssh usr/lib/*/libdb-5.3.so
for f in ssh ssh-add ssh-agent ssh-keyscan tar; do rm -f usr/bin/$f; done
mkdir -p proc sys dev run tmp var/lib/systemd/linger data etc/network var/lib/app root
for f in etc/machine-id etc/hostname etc/ssh/ssh_host_ed25519_key etc/ssh/ssh_host_ed25519_key.pub; do : >$f; done
systemctl --quiet enable updater-mark-good.service updater-health@health.d.service updater-update.timer updater-report.service updater-varlink.socket \
	updater-scrub.timer network-test.service probe.service
systemctl --quiet set-default multi-user.target
systemctl --quiet mask systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-journal-flush.service systemd-random-seed.service \
	systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-update-done.service systemd-sysctl.service systemd-sysusers.service \
	systemd-firstboot.service systemd-binfmt.service systemd-user-sessions.service systemd-pstore.service systemd-machine-id-commit.service \
	systemd-remount-fs.service systemd-ask-password-wall.path systemd-ask-password-console.path systemd-networkd.service \
	systemd-boot-system-token.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
	sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount modprobe@.service kmod-static-nodes.service getty.target systemd-logind.service \
	systemd-journal-catalog-update.service systemd-tmpfiles-clean.timer
`
)

// systemdSlot has the files of all versions: the package's units where the package puts them, the health checks and the data script of the examples.
func (d *device) systemdSlot() abdisk.SlotConfig {
	d.Helper()
	base, err := d.builder.Root(d.Context(), "systemd", systemdPackages)
	if err != nil {
		d.Fatal(err)
	}
	c := abdisk.SlotConfig{Kind: abdisk.Bare, Base: base, Setup: systemdSetup, SizeMiB: 100, Files: maps.Clone(systemdFiles), Scripts: map[string]string{}}
	place := regexp.MustCompile(`(?m)^  - src: (packaging/systemd/\*)\n    dst: /(.*)/$`).FindStringSubmatch(d.read("packaging/nfpm.yaml"))
	if place == nil {
		d.Fatal("packaging/nfpm.yaml: no place of packaging/systemd/*")
	}
	d.each(place[1], func(name string) { c.Files[place[2]+"/"+filepath.Base(name)] = d.read(name) })
	d.each("examples/health/health.d/*", func(name string) { c.Scripts["etc/updater/health.d/"+filepath.Base(name)] = d.read(name) })
	c.Files["etc/updater/data.list"] = d.read("examples/data/data.list")
	c.Files["etc/systemd/system/updater-mark-good.service.d/data.conf"] = d.read("examples/data/updater-mark-good.service.d.conf")
	c.Scripts["usr/lib/updater/updater-data"] = d.read("examples/data/updater-data")
	return c
}

// each calls a function with the files of the tree that match a pattern.
func (d *device) each(pattern string, visit func(name string)) {
	d.Helper()
	list, _ := filepath.Glob(filepath.Join("../..", pattern))
	if len(list) == 0 {
		d.Fatalf("no file matches %s", pattern)
	}
	for _, name := range list {
		visit(name[len("../../"):])
	}
}

// failOnce makes the first good mark of a version fail.
func failOnce(c abdisk.SlotConfig, version string) {
	c.Files["etc/systemd/system/updater-mark-good.service.d/test.conf"] = "[Service]\nExecStartPre=/usr/lib/test/fail-once\n"
	c.Scripts["usr/lib/test/fail-once"] = `#!/bin/sh
read -r v </etc/demo-version
[ "$v" != ` + version + ` ] || [ -e /run/failed-once ] || { : >/run/failed-once; exit 1; }
`
}

const dataInit = "init=/usr/lib/updater/updater-data"

// TestSystemd: the package's units carry a device through an update that the timer starts, a good mark that succeeds in the second attempt, the
// report, an update whose health check fails, the fallback and its report. The data script is the first process before systemd.
func TestSystemd(t *testing.T) {
	d := newDevice(t)
	c := d.systemdSlot()
	c.Scripts["etc/updater/health.d/30-app"] = healthOf3
	c.Scripts["etc/updater/health.d/40-data"] = "#!/bin/sh\nexec /usr/lib/updater/updater-data check\n"
	failOnce(c, "1")
	c.Scripts["usr/lib/test/probe"] = `#!/bin/sh
read -r v </etc/demo-version
read -r id </etc/machine-id
read -r name </etc/hostname
echo "PROBE version=$v id=$id name=$name"
[ -n "$name" ] || echo "named by $v" >/etc/hostname
while :; do
	s=$(systemctl show -P StatusText updater-update.service)
	case $s in *%*) echo "PROBE status=$s"; exit ;; esac
	sleep 1
done
`
	d.install(d.slot("1", c), dataInit)
	d.publish("2", d.slot("2", c))
	d.release("3", d.slot("3", c))

	m := d.boot("1")
	m.expect(`GRUB: booting slot A`)
	id := m.expect(`PROBE version=1 id=([0-9a-f]{32}) name=`)[1]
	m.expect(`updater-mark-good.service: Scheduled restart job`, `slot A is good`, `PROBE status=.*%`, `slot B boots next`)
	m.restarts()

	m = d.boot("2")
	m.expect(`GRUB: booting slot B`, `PROBE version=2 id=`+id+` name=named by 1$`)
	if r := m.reported("2", "good"); r.Identifier != id || r.Slot != "B" {
		t.Errorf("the report is of slot %s of %s; want slot B of %s", r.Slot, r.Identifier, id)
	}
	d.channel("add", "3")
	m.expect(`slot A boots next`)
	m.restarts()

	m = d.boot("3")
	m.expect(`GRUB: booting slot A`, `30-app: app of version 3`, `slot A is bad; restarting into the other one`)
	m.restarts()

	m = d.boot("4")
	m.expect(`GRUB: booting slot B`, `PROBE version=2 id=`+id)
	m.reported("3", "fell-back")
	m.PowerCut()
}

// TestSystemdServices tests the parts that the story above leaves out, on one device: the socket, the scrub, the inhibitor, a time limit that
// progress extends, a server that is down, and the verdict of systemd-analyze.
func TestSystemdServices(t *testing.T) {
	long(t)
	d := newDevice(t)
	c := d.systemdSlot()
	c.Setup += "rm etc/systemd/system/systemd-logind.service etc/systemd/system/timers.target.wants/updater-update.timer\n"
	c.Files["etc/updater/config.toml"] = d.config("[source]\nrate_limit = \"4K\"\n") // the download alone takes longer than the limit of the unit
	c.Files["etc/systemd/system/updater-update.service.d/inhibit.conf"] = d.read("examples/fleet/inhibit.conf")
	c.Files["etc/systemd/system/updater-update.service.d/limit.conf"] = "[Service]\nTimeoutStartSec=60\n"
	c.Files["etc/systemd/system/updater-report.service.d/test.conf"] = "[Service]\nRestartSec=2\n"
	failOnce(c, "2")
	c.Files["usr/share/noise"] = noise(512 << 10)
	c.Scripts["usr/lib/test/probe"] = servicesProbe
	first := d.slot("1", c)
	d.install(first, dataInit)
	c.Files["usr/share/noise"] = noise(512<<10) + strings.Repeat("damage here", 1000)
	d.publish("2", d.slot("2", c))
	d.refuse.Store(2)

	m := d.boot("services")
	m.expect(`PROBE verify:$`, `PROBE socket: 600 active inactive$`, `PROBE varlink: .*"booted":"A"`, `PROBE served: inactive$`,
		`PROBE extended: .*%`, `PROBE inhibitor: .*updater .*shutdown:sleep.*an update is being written`)
	m.expect(`slot B boots next`)
	m.restarts()

	m = d.boot("scrub")
	m.expect(`PROBE scrub: 0$`, `PROBE scrub: 14$`, `PROBE journal: updater: error: .*slot B`)
	m.reported("2", "good")
	if r := m.reported("2", "damaged"); r.Slot != "B" {
		t.Errorf("the report is of slot %s; want B", r.Slot)
	}
	if !slices.ContainsFunc(m.Lines(), regexp.MustCompile(`updater-report.service: Scheduled restart job`).MatchString) {
		t.Error("updater-report.service did not start again after the server was gone")
	}
}

// noise is text that does not compress.
func noise(n int) string {
	var seed [32]byte
	b := make([]byte, n/2)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return hex.EncodeToString(b)
}

const servicesProbe = `#!/bin/sh
read -r v </etc/demo-version
property() { systemctl show -P "$1" "$2"; }
# await PATTERN COMMAND...: waits until a command prints what matches.
await() {
	pattern=$1
	shift
	while :; do
		got=$("$@")
		case $got in $pattern) return ;; esac
		sleep 1
	done
}
echo "PROBE date $(date -Is)"
await active property ActiveState updater-mark-good.service
if [ "$v" = 1 ]; then
	echo "PROBE verify: $(cd /usr/lib/systemd/system && systemd-analyze verify --man=no updater-* 2>&1)"
	echo "PROBE socket: $(stat -c %a /run/io.updater) $(property ActiveState updater-varlink.socket) $(property ActiveState updater-varlink.service)"
	echo "PROBE varlink: $(printf '{"method":"io.updater.Status"}\0' | socat -t 60 - UNIX-CONNECT:/run/io.updater | tr '\0' '\n')"
	await inactive property ActiveState updater-varlink.service
	echo "PROBE served: $got"
	systemctl start --no-block updater-update.service
	await '*%*' property StatusText updater-update.service
	echo "PROBE extended: $got"
	await '*updater*' systemd-inhibit --list --no-legend
	echo "PROBE inhibitor: $got"
	exit
fi
systemctl start updater-scrub.service
echo "PROBE scrub: $(property ExecMainStatus updater-scrub.service)"
at=$(grep -zabo 'damage here''damage here' /dev/vda3 | head -zn1)
echo changed | dd of=/dev/vda3 bs=1 seek=${at%%:*} conv=notrunc
sync
systemctl start updater-scrub.service
echo "PROBE scrub: $(property ExecMainStatus updater-scrub.service)"
journalctl --sync
echo "PROBE journal: $(journalctl -q -t updater -p err -o cat | grep 'slot B' | head -n1)"
`
