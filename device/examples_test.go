package device_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/device"
	"updater/internal/rig"
)

// exampleDevice is a device of a configuration in examples/boot whose slot B was never filled.
type exampleDevice struct {
	*rig.Rig
	roles []string
	files []string // roles that are a file
}

// newExample makes the partitions that the configuration names, and the ESP as a folder.
func newExample(t *testing.T, name, first string) *exampleDevice {
	t.Helper()
	e := &exampleDevice{Rig: rig.New(t)}
	text, err := os.ReadFile(filepath.Join("../examples/boot", name))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(strings.ReplaceAll(string(text), `"PARTLABEL=esp"`, `"`+e.Dir+`/esp"`), "PARTLABEL=esp:/grub", e.Dir+"/esp/grub")
	config = strings.ReplaceAll(config, "PARTLABEL=esp:/", e.Dir+"/esp:/") + "[disk]\npath = \"disk.img\"\n"
	e.Write("config.toml", []byte(config))
	script := "mkdir -p esp; rm disk.img; truncate -s 96M disk.img; sgdisk"
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`PARTLABEL=([A-Za-z_-]+)`).FindAllStringSubmatch(config, -1) {
		if label := m[1]; !seen[label] {
			seen[label] = true
			script += fmt.Sprintf(" -n%d:0:+%dM -c%d:%s", len(seen), map[bool]int{true: 16, false: 2}[strings.Contains(strings.ToLower(label), "root") || strings.Contains(label, "system")], len(seen), label)
		}
	}
	e.Sh(script + " disk.img >/dev/null; " + first)
	for _, key := range []string{"partitions", "files"} {
		line := regexp.MustCompile(`(?m)^` + key + ` = \{ (.*) \}`).FindStringSubmatch(config)
		if line == nil {
			continue
		}
		for _, m := range regexp.MustCompile(`(\w+) = `).FindAllStringSubmatch(line[1], -1) {
			e.roles = append(e.roles, m[1])
			if key == "files" {
				e.files = append(e.files, m[1])
			}
		}
	}
	return e
}

// release makes a signed release of a version, with a variant of each file for each slot.
func (e *exampleDevice) release(version string) {
	e.Helper()
	args := []string{"release", "create", "--product", "acme-gw", "--version", version, "--rollback-index", version}
	e.Sh("rm -f release.toml* *.bmap")
	for _, role := range e.roles {
		image := "image.img"
		if role != "rootfs" {
			image = role + ".img"
			e.Sh(fmt.Sprintf("{ echo %s; head -c 200000 image.img; } >%s", role+version, image))
		}
		args = append(args, role+"="+image)
	}
	for _, role := range e.files {
		for i, a := range args {
			if !strings.HasPrefix(a, role+"=") {
				continue
			}
			args = append(args[:i], args[i+1:]...)
			for _, slot := range []string{"A", "B"} {
				image := fmt.Sprintf("%s-%s", role, slot)
				e.Write(image, []byte(boottest.Image("ID=acme-gw\n", "updater.slot="+slot+" v"+version)+strings.Repeat(version, 100000)))
				args = append(args, fmt.Sprintf("%s@%s=%s", role, slot, image))
			}
			break
		}
	}
	e.Expect(0, "", args...)
	e.Sign("release.toml", "release")
}

func (e *exampleDevice) status(booted string) (s device.Status) {
	e.Helper()
	if err := json.Unmarshal([]byte(e.Expect(0, "", "status", "--json", "--config", "config.toml", "--booted", booted)), &s); err != nil {
		e.Fatal(err)
	}
	return s
}

// Every example with several roles whose state can be on a disk image: with slot B empty the boot loader would only ever start A; a release
// is installed into B, which boots next and is marked good; the next one goes back into A.
func TestExamplesOfSeveralRoles(t *testing.T) {
	for _, c := range []struct{ name, first, a, b, tool string }{
		{"gpt/config.toml", `n() { sgdisk -p disk.img | awk -v l=$1 '$7 == l {print $1}'; }
			cgpt add -i $(n KERN-A) -P 2 -T 0 -S 1 disk.img; cgpt add -i $(n KERN-B) -P 0 -T 0 -S 0 disk.img`, "A", "B", "cgpt"},
		{"android/config.toml", `python3 - <<'P'
import struct, zlib, subprocess
at = [int(l.split()[1]) for l in subprocess.run(['sgdisk', '-p', 'disk.img'], capture_output=True, text=True).stdout.splitlines() if l.endswith(' misc')][0] * 512
b = struct.pack('<4sIBB2x4H8x', b'_a', 0x42414342, 1, 2, 0x7f, 0x7f, 0, 0)
with open('disk.img', 'r+b') as f:
    f.seek(at + 2048)
    f.write(b + struct.pack('<I', zlib.crc32(b)))
P
			updater mark good --config config.toml --booted a; updater mark bad b --config config.toml --booted a`, "a", "b", "python3"},
		{"grub/esp-kernel.toml", `mkdir esp/grub; grub-editenv esp/grub/grubenv create; grub-editenv esp/grub/grubenv set ORDER="A B" A_LEFT=g B_LEFT=0`, "A", "B", "sgdisk"},
		{"systemd-boot/config.toml", `mkdir -p esp/EFI/Linux esp/EFI/updater esp/loader; cp A.uki esp/EFI/updater/A.efi; cp A.uki esp/EFI/Linux/updater-1-A.efi`, "A", "B", "sgdisk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.tool); err != nil {
				t.Skipf("%s is not installed", c.tool)
			}
			uki := boottest.Image("ID=acme-gw\n", "updater.slot=A")
			e := newExample(t, c.name, "printf %s '"+fmt.Sprintf("%x", uki)+"' | xxd -r -p >A.uki; "+c.first)
			s := e.status(c.a)
			if len(e.roles) < 2 || s.Slots[1].State != "bad" || s.Primary != c.a || strings.Contains(fmt.Sprint(s.Boots), "slot "+c.b) {
				t.Fatalf("slot B is empty, and status = %+v", s)
			}
			if s.Slots[0].State != "good" {
				e.Expect(0, "", "mark", "good", "--config", "config.toml", "--booted", c.a)
			}
			slots := []string{c.a, c.b}
			for version := 7; version < 9; version++ {
				from, to := slots[(version-7)%2], slots[(version-6)%2]
				e.release(fmt.Sprint(version))
				e.Expect(0, "slot "+to+" boots next", "install", "--config", "config.toml", "--booted", from, "release.toml")
				for _, role := range e.files {
					e.Sh(fmt.Sprintf("test $(find esp -type f | xargs sha256sum | grep -c $(sha256sum %s-%s | cut -c1-64)) -ge 1; ! find esp | grep new$", role, to))
				}
				e.Expect(0, "", "mark", "good", "--config", "config.toml", "--booted", to)
				if s := e.status(to); s.Slots[(version-6)%2].State != "good" || s.Primary != to || s.Floor != int64(version) || len(s.Slots[0].Partitions) != len(e.roles) {
					t.Errorf("version %d: status = %+v", version, s)
				}
			}
		})
	}
}
