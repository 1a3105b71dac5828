package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dataDevice is a device with two read-only slots and a data file system, each a real file system in a loop mount.
type dataDevice struct {
	*testing.T
	dir, loop string
}

func (d *dataDevice) sh(script string, args ...string) string {
	d.Helper()
	cmd := exec.Command("bash", append([]string{"-euc", script}, args...)...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// release makes a slot hold a release: busybox, ssh-keygen, updater-data, its list, and files of its own.
func (d *dataDevice) release(slot, version string) {
	d.Helper()
	d.sh(`rm -rf tree; mkdir -p tree/bin tree/sbin tree/etc/ssh tree/etc/updater tree/var/lib/app tree/data tree/proc tree/dev tree/tmp tree/usr/lib/updater
		cp $(command -v busybox) tree/bin/; for a in sh cat cp mkdir mv rm cut sha256sum sync tr touch mount grep; do ln -s busybox tree/bin/$a; done
		cp -L $(command -v ssh-keygen) tree/bin/; for l in $(ldd $(command -v ssh-keygen) | grep -o '/[^ ]*'); do mkdir -p tree$(dirname $l); cp -L $l tree$l; done
		echo root:x:0:0::/:/bin/sh >tree/etc/passwd
		cp "$2"/updater-data tree/usr/lib/updater/
		printf '%s\n' 'shared /etc/machine-id' 'shared /etc/ssh/ssh_host_ed25519_key' 'shared /etc/ssh/ssh_host_ed25519_key.pub' 'own /etc/hostname' '' '# a folder' 'own /var/lib/app' >tree/etc/updater/data.list
		touch tree/etc/machine-id tree/etc/ssh/ssh_host_ed25519_key tree/etc/ssh/ssh_host_ed25519_key.pub
		echo factory >tree/etc/hostname; echo "made by $1" >tree/var/lib/app/made; echo "VERSION_ID=$1" >tree/etc/os-release
		printf '#!/bin/sh\neval "$*"\n' >tree/sbin/init; chmod 755 tree/sbin/init
		rm -f $0.img; truncate -s 48M $0.img; mkfs.ext4 -q -d tree $0.img`, slot, version, "../examples/data")
}

// boot starts a slot as the kernel does, with a first process that runs a script, and returns what it prints. It fails if the slot was changed.
func (d *dataDevice) boot(slot, script string) string {
	d.Helper()
	return d.sh(`sum=$(sha256sum <$0.img); mkdir -p root
		unshare -m bash -euc 'mount --make-rprivate /; mount -o loop,ro "$0.img" root; mount --bind /dev root/dev
			exec unshare -pf chroot root /bin/busybox env -i UPDATER_DATA="$1" UPDATER_SLOT="$0" /usr/lib/updater/updater-data "$2"' "$0" "$1" "$2" 2>&1
		[ "$sum" = "$(sha256sum <$0.img)" ] || { echo "the slot was changed"; exit 1; }`, slot, d.loop, script)
}

func newDataDevice(t *testing.T) *dataDevice {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, tool := range []string{"busybox", "ssh-keygen", "mkfs.ext4", "losetup", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	d := &dataDevice{T: t, dir: t.TempDir()}
	examples, err := filepath.Abs(root + "/examples/data")
	if err != nil {
		t.Fatal(err)
	}
	d.sh(`mkdir ../examples; ln -s "$0" ../examples/data; truncate -s 16M data.img; mkfs.ext4 -q -L data data.img; unshare -m true`, examples)
	loop, err := exec.Command("losetup", "-f", "--show", filepath.Join(d.dir, "data.img")).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	d.loop = strings.TrimSpace(string(loop))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", d.loop).Run() })
	return d
}

const (
	identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
	good     = "/usr/lib/updater/updater-data good"
)

func (d *dataDevice) expect(slot, script, want string) {
	d.Helper()
	if got := strings.TrimSpace(d.boot(slot, script)); got != want {
		d.Errorf("slot %s: %s:\n%s\nwant\n%s", slot, script, got, want)
	}
}

// TestDataAcrossUpdates: identity is one for the device, A -> B -> A keeps the files of the list, a fallback finds its own as it left them,
// and no slot is changed.
func TestDataAcrossUpdates(t *testing.T) {
	d := newDataDevice(t)
	d.release("A", "1")
	first := strings.TrimSpace(d.boot("A", identity))
	if lines := strings.Split(first, "\n"); len(lines) != 2 || len(lines[0]) != 32 || !strings.HasPrefix(lines[1], "ssh-ed25519 ") {
		t.Fatalf("identity of the first boot:\n%s", first)
	}
	d.expect("A", "/usr/lib/updater/updater-data check && echo gw-7 >/etc/hostname && echo one >/var/lib/app/db && "+good, "")
	d.expect("A", "cat /etc/hostname /var/lib/app/db", "gw-7\none")
	d.expect("A", "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/app && /usr/lib/updater/updater-data check || echo unhealthy",
		"updater-data: /var/lib/app: bound failed\nunhealthy") // the data is hidden

	// B begins with a copy of A's data, and changes it; A, by a fallback, finds its own.
	d.release("B", "2")
	d.expect("B", "cat /etc/hostname /var/lib/app/db /var/lib/app/made; echo two >/var/lib/app/db; "+identity, "gw-7\none\nmade by 1\n"+first)
	d.expect("B", "cat /var/lib/app/db", "two") // its second try
	d.expect("A", "cat /var/lib/app/db; echo one more >/var/lib/app/db; "+identity, "one\n"+first)

	// Tried again, B begins anew: the data of its failed trial is not used, and A went on meanwhile.
	d.expect("B", "cat /var/lib/app/db; echo two >/var/lib/app/db; "+good, "one more")
	d.expect("A", "cat /var/lib/app/db", "one more")
	d.expect("B", "cat /var/lib/app/db; "+identity, "two\n"+first)

	// A -> B -> A: the third release begins with B's data.
	d.release("A", "3")
	d.expect("A", "cat /etc/hostname /var/lib/app/db; "+identity, "gw-7\ntwo\n"+first)

	// Power cuts while the data is carried: half a copy, and a copy that was complete but had not taken its place.
	d.release("B", "4")
	mount := func(script string) {
		d.sh(`mkdir -p m; mount "$0" m; (cd m; eval "$1"); umount m`, d.loop, script)
	}
	mount("mkdir -p slots/B.part/files/var/lib/app; echo half >slots/B.part/files/var/lib/app/db; echo x >slots/last.part")
	d.expect("B", "cat /var/lib/app/db", "two")
	d.release("B", "5")
	mount("mv slots/B slots/B.part; echo A >slots/last")
	d.expect("B", "cat /var/lib/app/db; "+identity, "two\n"+first)

	// A path that only the new release has comes from its image.
	d.release("A", "6")
	d.sh("echo own /etc/os-release >>tree/etc/updater/data.list; rm A.img; truncate -s 48M A.img; mkfs.ext4 -q -d tree A.img")
	d.expect("A", "cat /etc/os-release /var/lib/app/db", "VERSION_ID=6\ntwo")
}

// TestDataFails: without its data the system still starts, and the health check fails, so the slot is not marked good.
func TestDataFails(t *testing.T) {
	d := newDataDevice(t)
	d.release("A", "1")
	d.sh("dd if=/dev/zero of=data.img bs=1M count=4 conv=notrunc status=none")
	if out := d.boot("A", "echo started; /usr/lib/updater/updater-data check || echo unhealthy"); !strings.Contains(out, "cannot be mounted") ||
		!strings.Contains(out, "started") || !strings.Contains(out, "unhealthy") {
		t.Error(out)
	}
}
