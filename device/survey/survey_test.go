package survey_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/device"
	"updater/device/config"
	"updater/device/survey"
)

// disk makes a disk image with the partitions that a configuration names and runs a script that fills it. at NAME is the offset of a partition in bytes.
func disk(t *testing.T, text, fill string) string {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "mkenvimage", "python3", "grub-editenv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	script := "truncate -s 64M disk.img; sgdisk"
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`PARTLABEL=([A-Za-z0-9_-]+)`).FindAllStringSubmatch(text, -1) {
		if label := m[1]; !seen[label] {
			seen[label] = true
			script += fmt.Sprintf(" -n%d:0:+4M -c%d:%s", len(seen)+10, len(seen)+10, label)
		}
	}
	script += ` -n99:20M:+8M -c99:other disk.img >/dev/null
		at() { sgdisk -p disk.img | awk -v l=$1 '$NF == l { print $2 * 512 }'; }
		fat() { mkfs.vfat -C $1.img 4096 >/dev/null; mcopy -s -i $1.img $1/* ::/; dd if=$1.img of=disk.img bs=512 seek=$(($(at $1) / 512)) conv=notrunc status=none; }
		`
	cmd := exec.Command("bash", "-euc", strings.Replace(script, "-n99:20M:+8M -c99:other", "", 1)+fill)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(cmd.Dir, "disk.img")
}

func load(t *testing.T, path string) *config.Config {
	t.Helper()
	c, err := device.LoadConfig(path, config.Build{})
	if err != nil {
		text, _ := os.ReadFile(path)
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// examples are the configurations in examples/boot, each with what its boot loader leaves on a disk.
var examples = []struct{ name, fill, state string }{
	{"grub/config.toml", `mkdir -p esp/grub; touch esp/grub/tries.cfg; grub-editenv esp/grub/grubenv create; fat esp`, "grubenv"},
	{"grub/esp-kernel.toml", `mkdir -p esp/grub esp/slots/A; touch esp/slots/A/vmlinuz esp/slots/A/initrd.img
		grub-editenv esp/grub/grubenv create; grub-editenv esp/grub/grubenv set ORDER="A B" A_LEFT=g B_LEFT=0; fat esp`, ""},
	{"systemd-boot/config.toml", `mkdir -p esp/EFI/Linux esp/EFI/updater esp/loader; touch esp/loader/loader.conf esp/EFI/updater/A.efi esp/EFI/Linux/updater-1-A.efi; fat esp`, ""},
	{"efi/config.toml", `mkdir -p esp/EFI/slots esp/EFI/BOOT; touch esp/EFI/slots/A.efi esp/EFI/slots/B.efi esp/EFI/BOOT/BOOTX64.EFI; fat esp`, ""},
	{"gpt/config.toml", ``, ""},
	{"tryboot/config.toml", `mkdir -p autoboot boot_a boot_b; printf '[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n' >autoboot/autoboot.txt
		for s in a b; do echo root=PARTLABEL=rootfs_$s ro >boot_$s/cmdline.txt; done
		for p in $(seq 11 16); do sgdisk -r $p:$((p - 10)) disk.img >/dev/null; done
		sgdisk -c1:autoboot -c2:boot_a -c3:boot_b -c4:rootfs_a -c5:rootfs_b -c6:state disk.img >/dev/null; fat autoboot; fat boot_a; fat boot_b`, ""},
	{"android/config.toml", `printf 'BCAB' >m; python3 -c "import sys, struct; sys.stdout.buffer.write(struct.pack('<4sI', b'_a', 0x42414342))" >m
		dd if=m of=disk.img bs=1 seek=$(($(at misc) + 2048)) conv=notrunc status=none`, ""},
	{"barebox/config.toml", `python3 - $(at barebox-state) <<'P'
import struct, sys, zlib
data = struct.pack('<5I', 3, 20, 3, 10, 0)
head = struct.pack('<IHHI', 0x4d433230, 0, len(data), zlib.crc32(data))
raw = head + struct.pack('<I', zlib.crc32(head)) + data
with open('disk.img', 'r+b') as f:
    for i in range(3):
        f.seek(int(sys.argv[1]) + i * 1024)
        f.write(struct.pack('<II', 0x2354fdf3, len(raw)) + raw)
P`, ""},
	{"uboot/config.toml", `sgdisk -Z disk.img >/dev/null; sgdisk -n1:8M:+4M -c1:rootfs_A -n2:0:+4M -c2:rootfs_B disk.img >/dev/null
		printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0\nbootdelay=1\n' | mkenvimage -r -s 0x4000 -o env -
		for at in 256 272; do dd if=env of=disk.img bs=4096 seek=$at conv=notrunc status=none; done`, ""},
	{"custom/config.toml", ``, ""},
}

// TestExamples: the draft from a disk of every example in examples/boot loads, and has the boot loader, the slots and the roles of the example.
func TestExamples(t *testing.T) {
	seen, err := filepath.Glob("../../examples/boot/*/*.toml")
	if err != nil || len(seen) != len(examples) {
		t.Fatalf("%d configurations in examples/boot, %v; want %d", len(seen), err, len(examples))
	}
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			example := filepath.Join("../../examples/boot", e.name)
			text, err := os.ReadFile(example)
			if err != nil {
				t.Fatal(err)
			}
			image := disk(t, string(text), e.fill)
			o := survey.Options{Disk: image, Product: "acme-gw"}
			draft := filepath.Join(filepath.Dir(image), "draft.toml")
			if _, _, err := survey.Draft(o, draft); err != nil {
				t.Fatal(err)
			}
			want, got := load(t, example), load(t, draft)
			if got.Boot.Backend != want.Boot.Backend || got.Product != want.Product || !slices.Equal(got.SlotNames(), want.SlotNames()) {
				t.Errorf("backend %s, product %s, slots %v; want %s, %s, %v", got.Boot.Backend, got.Product, got.SlotNames(), want.Boot.Backend, want.Product, want.SlotNames())
			}
			if a, b := got.Layout().Roles, want.Layout().Roles; !slices.Equal(a, b) {
				t.Errorf("roles %v; want %v", a, b)
			}
			if fmt.Sprintf("%+v", got.Boot) != fmt.Sprintf("%+v", want.Boot) || fmt.Sprintf("%+v", got.State) != fmt.Sprintf("%+v", want.State) {
				t.Errorf("[boot] %+v, state %+v; want %+v, %+v", got.Boot, got.State, want.Boot, want.State)
			}
			for i := range want.Slot {
				attempts := func(s config.Slot) string {
					if s.Attempts == nil {
						return ""
					}
					return fmt.Sprint(*s.Attempts, *s.Priority)
				}
				a, b := got.Slot[i], want.Slot[i]
				if fmt.Sprint(a.Partitions, a.Files, a.Loader, a.BootPartition, attempts(a)) != fmt.Sprint(b.Partitions, b.Files, b.Loader, b.BootPartition, attempts(b)) {
					t.Errorf("slot %+v; want %+v", a, b)
				}
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(image), "grubenv")); (err == nil) != (e.state == "grubenv") {
				t.Errorf("grubenv beside the draft: %v; want %q", err, e.state)
			}
			// A second run overwrites nothing.
			before, _ := os.ReadFile(draft)
			if _, _, err := survey.Draft(o, draft); !errors.Is(err, fs.ErrExist) {
				t.Errorf("written over a file: %v", err)
			}
			if after, _ := os.ReadFile(draft); string(after) != string(before) {
				t.Error("the draft changed")
			}
		})
	}
}

// TestHostileLabels: labels that would end a string or a comment do not reach the draft.
func TestHostileLabels(t *testing.T) {
	image := disk(t, "", "sgdisk -n1:0:+4M -c1:'x\"]_a' -n2:0:+4M -c2:'x\"]_b' -n3:0:+1M -c3:$'a\\nproduct = 1' disk.img >/dev/null")
	draft := filepath.Join(t.TempDir(), "config.toml")
	if _, _, err := survey.Draft(survey.Options{Disk: image}, draft); err != nil {
		t.Fatal(err)
	}
	if c := load(t, draft); c.Boot.Backend != "custom" || c.Product != "" || !strings.HasPrefix(c.Slot[0].Partitions["x__"], "PARTUUID=") {
		t.Errorf("drafted %+v", c)
	}
}

// TestEveryBackend: with --backend every boot loader has a draft that loads, without any trace of it on the disk.
func TestEveryBackend(t *testing.T) {
	image := disk(t, "PARTLABEL=rootfs_a PARTLABEL=rootfs_b PARTLABEL=kern_a PARTLABEL=kern_b PARTLABEL=boot_a PARTLABEL=boot_b", "")
	for _, backend := range device.Backends() {
		draft := filepath.Join(t.TempDir(), "config.toml")
		if _, _, err := survey.Draft(survey.Options{Disk: image, Backend: backend}, draft); err != nil {
			t.Fatal(err)
		}
		if c := load(t, draft); c.Boot.Backend != backend {
			t.Errorf("drafted %s; want %s", c.Boot.Backend, backend)
		}
	}
}

// TestMachine: a running machine adds the device tree and fw_env.config.
func TestMachine(t *testing.T) {
	root := t.TempDir()
	tree := "sys/firmware/devicetree/base/"
	if err := boottest.WriteFiles(root, map[string]string{
		"etc/fw_env.config": "/dev/mmcblk0 0x100000 0x4000\n", tree + "compatible": "acme,gw-1.1\x00acme,gw\x00",
	}); err != nil {
		t.Fatal(err)
	}
	image := disk(t, "PARTLABEL=rootfs_a PARTLABEL=rootfs_b", "")
	s, err := survey.Look(survey.Options{Disk: image, Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if s.Backend != "uboot" || !slices.Contains(s.Boot, `fw_env_config = "/etc/fw_env.config"`) || !strings.Contains(strings.Join(s.Found, "\n"), "acme,gw-1.1") {
		t.Errorf("found %+v", s)
	}
}
