//go:build vm

package units

import (
	"crypto/md5"
	"fmt"
	"strconv"
	"testing"

	"updater/internal/abdisk"
)

// common are the files of a slot whose init is BusyBox's, or OpenRC under it. The crontab has the script of the examples each minute.
func (d *device) common(inittab string) abdisk.SlotConfig {
	d.Helper()
	return abdisk.SlotConfig{
		Files: map[string]string{
			"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hostname": "gw\n", "etc/fstab": "",
			"etc/inittab": inittab, "etc/machine-id": soon(),
			"etc/crontabs/root": "* * * * * /usr/lib/updater/updater-update.sh >/dev/console 2>&1\n",
		},
		Scripts: map[string]string{
			"etc/updater/health.d/30-app":       healthOf3,
			"usr/lib/updater/updater-update.sh": d.read("examples/fleet/updater-update.sh"),
		},
	}
}

// healthOf3 fails in version 3.
const healthOf3 = "#!/bin/sh\nread -r v </etc/demo-version\necho \"app of version $v\"\n[ \"$v\" != 3 ]\n"

// soon is a machine-id with which the script of the examples does not wait.
func soon() string {
	for n := 0; ; n++ {
		id := fmt.Sprintf("%032x\n", n)
		sum := md5.Sum([]byte(id))
		if delay, _ := strconv.ParseUint(fmt.Sprintf("%x", sum[:3]), 16, 32); delay%14000 == 0 {
			return id
		}
	}
}

// story is the same for both: the script of the examples updates, the boot is marked good, the report arrives, and a release with a failing health
// check falls back. afterMark are further lines of the second version's boot.
func (d *device) story(c abdisk.SlotConfig, afterMark ...string) {
	d.Helper()
	d.install(d.slot("1", c), "")
	d.publish("2", d.slot("2", c))
	d.release("3", d.slot("3", c))
	m := d.boot("1")
	m.expect(`app of version 1`, `slot A is good`, `slot B boots next`)
	m.restarts()

	m = d.boot("2")
	m.expect(`app of version 2`, `slot B is good`)
	m.expect(afterMark...)
	m.reported("2", "good")
	d.channel("add", "3")
	m.expect(`slot A boots next`)
	m.restarts()

	m = d.boot("3")
	m.expect(`app of version 3`, `slot A is bad; restarting into the other one`)
	m.restarts()

	m = d.boot("4")
	m.expect(`GRUB: booting slot B`, `slot B is good`)
	m.reported("3", "fell-back")
}

// TestBusyBox: BusyBox init and crond run the examples for them.
func TestBusyBox(t *testing.T) {
	long(t)
	d := newDevice(t)
	c := d.common(`::sysinit:/etc/init.d/rcS
::respawn:/usr/bin/crond -f -c /etc/crontabs
::ctrlaltdel:/sbin/reboot
`)
	c.Kind, c.Setup = abdisk.Small, "rm usr/bin/init\n/usr/bin/busybox --install -s /usr/bin\nmkdir root\n"
	c.Scripts["etc/init.d/rcS"] = `#!/bin/sh
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for m in virtio_net vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8; do modprobe $m; done
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
for s in /etc/init.d/S*; do "$s" start; done
`
	c.Scripts["etc/init.d/S99updater-health"] = d.read("examples/health/updater-health.busybox")
	d.story(c)
}

// TestOpenRC: OpenRC, started by BusyBox init as in Alpine, runs the services of the examples, and crond their script.
func TestOpenRC(t *testing.T) {
	long(t)
	d := newDevice(t)
	base, err := d.builder.Root(t.Context(), "openrc", "openrc,dash,base-files,busybox-static")
	if err != nil {
		t.Fatal(err)
	}
	c := d.common(`::sysinit:/sbin/openrc sysinit
::sysinit:/sbin/openrc boot
::wait:/sbin/openrc default
::respawn:/usr/bin/crond -f -c /etc/crontabs
::ctrlaltdel:/sbin/reboot
::shutdown:/sbin/openrc shutdown
`)
	c.Kind, c.Base = abdisk.Bare, base
	c.Setup = `/usr/bin/busybox --install -s /usr/bin
rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/perl5 usr/lib/*/gconv
for f in init reboot; do ln -sf ../bin/busybox usr/sbin/$f; done
mkdir -p proc sys dev run tmp root
rc-update add localmount boot
rc-update add net default
rc-update add updater-health default
rc-update add updater-report default
`
	c.Scripts["etc/init.d/localmount"] = `#!/sbin/openrc-run
start() { mount -t tmpfs tmpfs /tmp; }
`
	c.Scripts["etc/init.d/net"] = `#!/sbin/openrc-run
start() {
	for m in virtio_net vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8; do modprobe $m; done
	ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
}
`
	c.Scripts["etc/init.d/updater-health"] = d.read("examples/health/updater-health.openrc")
	c.Scripts["etc/init.d/updater-report"] = d.read("examples/fleet/updater-report.openrc")
	d.story(c, `Reporting the last install.*1 reports sent`)
}
