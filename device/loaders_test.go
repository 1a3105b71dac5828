package device_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/device"
	"updater/internal/rig"
)

const bootDisk = `truncate -s 8M disk.img
sgdisk -n1:2048:+1M -c1:misc -n2:0:+1M -c2:rootfs_a -n3:0:+1M -c3:rootfs_b disk.img >/dev/null
`

// The boot loaders that the scripts do not run on, each on a disk image made with the loader's own tools
// where there are any: slot B is made bad, active, and good, as people do it.
func TestBootLoaders(t *testing.T) {
	for _, c := range []struct {
		name, prepare, boot string
		slots               [2]string // further keys
		tools               []string
		files               map[string]string // of the ESP
		tries               int               // that the boot loader counts; 0 is 2
		restart             string            // action of the firmware before it boots a slot
	}{
		{
			name: "gpt", tools: []string{"cgpt"},
			prepare: `cgpt add -i 2 -P 2 -T 0 -S 1 disk.img; cgpt add -i 3 -P 1 -T 0 -S 1 disk.img`,
			boot:    `backend = "gpt"`,
		},
		{
			name: "android",
			prepare: `python3 - <<'P'
import struct, zlib
b = struct.pack('<4sIBB2x4H8x', b'_a', 0x42414342, 1, 2, 0x9f, 0x9e, 0, 0)
with open('disk.img', 'r+b') as f:
    f.seek(1 << 20 | 2048)
    f.write(b + struct.pack('<I', zlib.crc32(b)))
P`,
			boot: `backend = "android"` + "\n" + `env = "PARTLABEL=misc"`,
		},
		{
			name: "barebox",
			prepare: `python3 - <<'P'
import struct, zlib
data = struct.pack('<5I', 3, 20, 3, 10, 0)
head = struct.pack('<IHHI', 0x4d433230, 0, len(data), zlib.crc32(data))
raw = head + struct.pack('<I', zlib.crc32(head)) + data
with open('disk.img', 'r+b') as f:
    for i in range(3):
        f.seek((1 << 20) + i * 1024)
        f.write(struct.pack('<II', 0x2354fdf3, len(raw)) + raw)
P`,
			boot:  `backend = "barebox"` + "\n" + `env = [ { device = "PARTLABEL=misc", offset = 0, size = 3072 } ]` + "\n" + `barebox = { magic = 0x4d433230, stride = 1024 }`,
			slots: [2]string{"attempts = 0\npriority = 4", "attempts = 8\npriority = 12"},
		},
		{
			name: "systemd-boot",
			prepare: `mkdir -p esp/loader/entries esp/loader/updater
for s in A B; do echo "linux /$s/vmlinuz" >esp/loader/updater/$s.conf; done
printf 'linux /A/vmlinuz\nversion 2\n' >esp/loader/entries/updater-2-A.conf
printf 'linux /B/vmlinuz\nversion 1\n' >esp/loader/entries/updater-1-B.conf`,
			boot: `backend = "systemd-boot"` + "\n" + `esp = "DIR/esp"`,
		},
		{
			name: "systemd-boot with unified kernel images", files: boottest.ImageFiles(),
			boot: `backend = "systemd-boot"` + "\n" + `esp = "DIR/esp"`,
		},
		{
			name: "tryboot", tools: []string{"mkfs.vfat", "mcopy"}, tries: 1, restart: "rm disk.img.tryboot",
			prepare: `truncate -s 1M misc; mkfs.vfat misc >/dev/null
printf '[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n' >autoboot.txt
mcopy -i misc autoboot.txt ::; dd if=misc of=disk.img bs=1M seek=1 conv=notrunc status=none`,
			boot:  `backend = "tryboot"` + "\n" + `env = "PARTLABEL=misc:/autoboot.txt"`,
			slots: [2]string{"boot_partition = 2", "boot_partition = 3"},
		},
		{
			name: "custom",
			prepare: `echo good >A; echo good >B; echo A >next
cat >loader <<'P'
#!/bin/sh
cd DIR
case $1 in
state) for s in A B; do n=; [ $(cat next) != $s ] || n=next; echo $s $(cat $s) $n; done ;;
invalidate) echo bad >$2; [ $2 != $(cat next) ] || { [ $2 = A ] && echo B >next || echo A >next; } ;;
activate) echo trying $3 >$2; echo $2 >next ;;
good) echo good >$2 ;;
esac
P
chmod +x loader`,
			boot: `backend = "custom"
commands = { state = ["DIR/loader", "state"], invalidate = ["DIR/loader", "invalidate", "{slot}"], activate = ["DIR/loader", "activate", "{slot}", "{tries}"], good = ["DIR/loader", "good", "{slot}"] }`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, tool := range append(c.tools, "sgdisk", "python3") {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skipf("%s is not installed", tool)
				}
			}
			dir := t.TempDir()
			shell := func(script string) {
				t.Helper()
				cmd := exec.Command("bash", "-euc", strings.ReplaceAll(script, "DIR", dir))
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			shell(bootDisk + c.prepare)
			if err := boottest.WriteFiles(filepath.Join(dir, "esp"), c.files); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(dir, "config.toml")
			var text strings.Builder
			text.WriteString("[disk]\npath = \"disk.img\"\n[boot]\n" + strings.ReplaceAll(c.boot, "DIR", dir) + "\ntries = 2\n")
			for i, s := range []string{"A", "B"} {
				fmt.Fprintf(&text, "[[slot]]\nname = %q\npartitions = { rootfs = \"PARTLABEL=rootfs_%s\" }\n%s\n", s, strings.ToLower(s), c.slots[i])
			}
			if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			run := func(want int, args ...string) string {
				t.Helper()
				code, out, errs := rig.Run(t, append(args, "--config", config)...)
				if code != want {
					t.Fatalf("updater %v: exit %d, want %d: %s%s", args, code, want, out, errs)
				}
				return out
			}
			state := func(booted, primary, slotB string) {
				t.Helper()
				var s device.Status
				if err := json.Unmarshal([]byte(run(0, "status", "--json", "--booted", booted)), &s); err != nil {
					t.Fatal(err)
				}
				if s.Primary != primary || s.Slots[1].State != slotB || len(s.Boots) == 0 {
					t.Errorf("status = %+v; want %s next and slot B %s", s, primary, slotB)
				}
			}
			state("A", "A", "good")
			run(0, "mark", "bad", "B", "--booted", "A")
			state("A", "A", "bad")
			run(0, "activate", "B", "--booted", "A")
			var s device.Status
			if err := json.Unmarshal([]byte(run(0, "status", "--json", "--booted", "A")), &s); err != nil || s.Primary != "B" || s.Slots[1].TriesLeft != cmp.Or(c.tries, 2) {
				t.Errorf("after activate status = %+v, %v; want B next with %d tries", s, err, cmp.Or(c.tries, 2))
			}
			shell(c.restart)
			run(0, "mark", "good", "--booted", "B")
			state("B", "B", "good")
			run(16, "mark", "good", "A", "--booted", "B")
			// There is no keyring here; nothing is wrong with the boot state.
			if out := run(10, "doctor", "--booted", "B"); strings.Count(out, "failure: ") != 1 || !strings.Contains(out, "failure: no keyring") {
				t.Errorf("doctor: %s", out)
			}
		})
	}
}

// On a disk image file the firmware of this machine is not touched.
func TestFirmwareOfAnImage(t *testing.T) {
	if _, err := exec.LookPath("sgdisk"); err != nil {
		t.Skip("sgdisk is not installed")
	}
	dir := t.TempDir()
	cmd := exec.Command("bash", "-euc", bootDisk)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config := filepath.Join(dir, "efi.toml")
	text := "[disk]\npath = \"disk.img\"\n[boot]\nbackend = \"efi\"\nesp = \"PARTLABEL=misc\"\n" + rig.ConfigTail
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := rig.Run(t, "status", "--config", config); code != 2 || !strings.Contains(errs, "firmware of this machine") {
		t.Errorf("exit %d: %s; want a usage error", code, errs)
	}
}
