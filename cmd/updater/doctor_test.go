package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/device/doctor"
	"updater/internal/rig"
	"updater/state"
)

// patient is a device that the doctor looks at, healthy until a fault is planted.
type patient struct {
	*rig.Rig
	machine doctor.Machine
}

const healthyState = `state = "PARTLABEL=state"`

func newPatient(t *testing.T) *patient {
	p := &patient{rig.New(t), doctor.ThisMachine()}
	p.Configure(healthyState, "")
	return p
}

// examine returns the findings, and the exit code that they end with.
func (p *patient) examine() (found []doctor.Finding, code int) {
	p.Helper()
	var out bytes.Buffer
	err := examine(p.Context(), bootOptions{config: p.Path("config.toml"), json: true}, p.machine, Env{Stdout: &out, Stderr: &out})
	if err != nil {
		code, _ = classify(err)
	}
	var said struct{ Findings []doctor.Finding }
	if bad := json.Unmarshal(out.Bytes(), &said); bad != nil {
		p.Fatalf("%v: %s", bad, out.Bytes())
	}
	return said.Findings, code
}

// uboot makes it a device with U-Boot and the given areas of its environment.
func (p *patient) uboot(areas string) {
	p.Helper()
	p.Sh(`cp --sparse=always "$0/uboot.img" disk.img`, rig.Shared())
	config := rig.Configs["uboot"]
	if areas != "" {
		from, rest, _ := strings.Cut(config, "env = ")
		_, rest, _ = strings.Cut(rest, "\n")
		config = from + "env = " + areas + "\n" + rest
	}
	p.Write("config.toml", []byte(healthyState+"\n"+config))
}

// edit replaces text of the configuration.
func (p *patient) edit(old, text string) {
	p.Helper()
	config := string(p.Read("config.toml"))
	if !strings.Contains(config, old) {
		p.Fatalf("the configuration has no %q", old)
	}
	p.Write("config.toml", []byte(strings.Replace(config, old, text, 1)))
}

// remember changes the state store.
func (p *patient) remember(change func(s *state.State)) {
	p.Helper()
	disk, err := blockdev.OpenDisk(p.Path("disk.img"))
	if err != nil {
		p.Fatal(err)
	}
	defer disk.Close()
	part, err := disk.Find("PARTLABEL=state")
	if err != nil {
		p.Fatal(err)
	}
	area, err := part.OpenWindow(0, part.Size, blockdev.Exclusive)
	if err != nil {
		p.Fatal(err)
	}
	defer area.Close()
	store, err := state.Open(area, state.State{})
	if err == nil {
		err = store.Update(change)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// facts changes the kernel's facts about every partition's device.
func (p *patient) facts(change func(f *blockdev.Facts, has *blockdev.Features)) {
	p.machine.Medium = func(part blockdev.Partition) (blockdev.Facts, blockdev.Features, error) {
		f, has, err := doctor.ThisMachine().Medium(part)
		change(&f, &has)
		return f, has, err
	}
}

// key makes a key that was made some days ago and lives for some days, and puts its certificate into the keyring.
func (p *patient) key(name, days string) {
	p.Helper()
	p.Sh(`export GNUPGHOME=$PWD/g; mkdir -p -m 700 g; trap 'gpgconf --kill all' EXIT
		gpg -q --batch --faked-system-time "$(date -u -d '30 days ago' +%Y%m%dT%H%M%S)" --passphrase '' --quick-generate-key "$0 <$0@example.com>" ed25519 sign "$1" 2>/dev/null
		gpg -q --armor --export "$0@example.com" > keys/"$0".asc`, name, days)
}

func (p *patient) grubenv(set string) {
	p.Helper()
	p.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv e && grub-editenv e set ` + set + ` && mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
}

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// planted are the faults, each with the severity and the words of the finding that it must lead to.
var planted = []struct {
	name     string
	plant    func(p *patient)
	severity boot.Severity
	words    string
	code     int
}{
	{"unknown key", func(p *patient) { p.Configure("nosuch = 1", "") }, boot.Failure, "unknown key", ExitUsage},
	{"no configuration", func(p *patient) { p.Sh("rm config.toml") }, boot.Failure, "no such file", ExitUsage},
	{"slot twice", func(p *patient) { p.edit(`name = "B"`, `name = "A"`) }, boot.Failure, "slot A is defined twice", ExitUsage},
	{"no product", func(p *patient) { p.edit(`product = "demo"`, "") }, boot.Warning, "no product is configured", 0},
	{"no state store", func(p *patient) { p.Configure("", "") }, boot.Warning, "no state store is configured", 0},
	{"role of one slot only", func(p *patient) {
		p.edit(`rootfs = "PARTLABEL=rootfs_a"`, `rootfs = "PARTLABEL=rootfs_a", data = "PARTLABEL=esp"`)
	}, boot.Failure, "slot B has none", ExitUsage},
	{"unstable node", func(p *patient) { p.edit("PARTLABEL=rootfs_b", "/dev/sda3") }, boot.Warning, "may name another disk when", 0},
	{"role that no slot has", func(p *patient) {
		fpr := strings.TrimSpace(p.Sh(`gpg -q --with-colons --list-keys release@example.com | awk -F: '/^fpr/{print $10; exit}'`))
		p.Configure(healthyState, "\n[[trust.key]]\nfingerprint = \""+fpr+"\"\nroles = [\"rotfs\", \"rootfs\"]\n")
	}, boot.Warning, "role rotfs, which no slot has", 0},
	{"missing CA file", func(p *patient) { p.Configure(healthyState, "\n[source]\nca = \"nosuch.pem\"\n") }, boot.Failure, "source.ca: ", ExitUsage},
	{"open token", func(p *patient) {
		p.Write("token", nil)
		p.Sh("chmod 644 token")
		p.Configure(healthyState, "\n[source]\ntoken_file = \"token\"\ntoken_host = \"h\"\n")
	}, boot.Warning, "users other than the owner can read", 0},

	{"missing hook", func(p *patient) { p.Configure(healthyState, "\n[hooks]\npre_install = \"nosuch\"\n") }, boot.Failure, "hooks.pre_install: ", ExitUsage},
	{"hook of everybody", func(p *patient) {
		p.Sh("touch hook; chmod 777 hook")
		p.Configure(healthyState, "\n[hooks]\npost_install = \"hook\"\n")
	}, boot.Warning, "users other than the owner can change", 0},

	{"no keyring", func(p *patient) { p.edit(`keyring = ["keys"]`, "") }, boot.Failure, "no keyring is configured", ExitTrust},
	{"empty keyring", func(p *patient) { p.Sh("rm keys/*") }, boot.Failure, "directory contains no key file", ExitTrust},
	{"secret key", func(p *patient) {
		p.Sh("gpg -q --batch --armor --export-secret-keys release@example.com > keys/secret.asc")
	}, boot.Failure, "secret key", ExitTrust},
	{"keyring of everybody", func(p *patient) { p.Sh("chmod 777 keys") }, boot.Warning, "users other than the owner can change", 0},
	{"all keys expired", func(p *patient) { p.Sh("rm keys/*"); p.key("old", "10d") }, boot.Failure, "0 of the trusted keys can sign now", ExitTrust},
	{"a key expired", func(p *patient) { p.key("old", "10d") }, boot.Warning, "the key had expired on", 0},
	{"a key expires soon", func(p *patient) { p.key("soon", "40d") }, boot.Warning, "expires on", 0},
	{"too few keys", func(p *patient) { p.Configure(healthyState, "\n[trust]\nmin_signers = 2\n") }, boot.Failure, "asks for 2 signers", ExitTrust},
	{"pin without a key", func(p *patient) {
		p.Configure(healthyState, "\n[[trust.key]]\nfingerprint = \""+strings.Repeat("A", 40)+"\"\n")
	}, boot.Failure, "the keyring has no key AAAA", ExitTrust},

	{"no clock", func(p *patient) { p.machine.Now = func() time.Time { return time.Unix(100, 0) } }, boot.Warning, "1970-01-01T00:01:40Z: it was never set", 0},
	{"clock before the floor", func(p *patient) {
		p.remember(func(s *state.State) { s.Time = day })
		p.machine.Now = func() time.Time { return day.AddDate(0, -2, 0) }
	}, boot.Warning, "the last trusted time", 0},
	{"clock far ahead", func(p *patient) {
		p.remember(func(s *state.State) { s.Time = day })
		p.machine.Now = func() time.Time { return day.AddDate(40, 0, 0) }
	}, boot.Warning, "ten years after", 0},

	{"no disk", func(p *patient) { p.Sh("rm disk.img") }, boot.Failure, "no such file", ExitFailed},
	{"primary table damaged", func(p *patient) { p.Sh("dd if=/dev/zero of=disk.img bs=512 seek=1 count=1 conv=notrunc status=none") }, boot.Warning, "primary partition table at sector 1", 0},
	{"no table", func(p *patient) {
		p.Sh("dd if=/dev/zero of=disk.img bs=512 seek=1 count=1 conv=notrunc status=none; truncate -s -1M disk.img; truncate -s +1M disk.img")
	}, boot.Failure, "reading the partition table", ExitFailed},
	{"wrong partition", func(p *patient) { p.edit("PARTLABEL=rootfs_b", "PARTLABEL=rootfs_c") }, boot.Failure, "PARTLABEL=rootfs_c is not on disk", ExitIncompatible},
	{"ambiguous partition", func(p *patient) { p.Sh("sgdisk -c4:rootfs_b disk.img"); p.edit(`"PARTLABEL=state"`, `"st"`) }, boot.Failure, "partitions 3 and 4 both match", ExitIncompatible},
	{"one partition for both", func(p *patient) { p.edit("PARTLABEL=rootfs_b", "/dev/vda2") }, boot.Failure, "both have partition 2", ExitIncompatible},
	{"sizes differ", func(p *patient) { p.Sh("sgdisk -d3 -n3:0:+12M -c3:rootfs_b disk.img") }, boot.Warning, "an image that fits one may not fit the other", 0},
	{"slot too small", func(p *patient) {
		p.remember(func(s *state.State) {
			s.Put("A", "rootfs", state.Image{Size: rig.SlotBytes + 1, At: day, Result: state.Good}, "")
		})
	}, boot.Failure, "the image of slot A has 16777217", ExitIncompatible},
	{"held target", func(p *patient) {
		node, err := exec.Command("losetup", "-f", "--show", p.Path("disk.img")).Output()
		if err != nil {
			p.Skipf("no loop device: %v", err)
		}
		p.Cleanup(func() { _ = exec.Command("losetup", "-d", strings.TrimSpace(string(node))).Run() })
	}, boot.Failure, "the file is attached to /dev/loop", ExitIncompatible},
	{"another updater", func(p *patient) {
		disk, err := blockdev.OpenDisk(p.Path("disk.img"))
		if err == nil {
			err = disk.Lock(0)
		}
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(func() { disk.Close() })
	}, boot.Info, "is locked by", 0},

	{"read-only medium", func(p *patient) { p.facts(func(f *blockdev.Facts, _ *blockdev.Features) { f.ReadOnly = true }) }, boot.Failure, "is read-only", ExitWrite},
	{"unaligned slot", func(p *patient) {
		p.facts(func(f *blockdev.Facts, _ *blockdev.Features) { f.PhysicalBlock = 16 << 20 })
	}, boot.Warning, "inside a physical block", 0},
	{"hidden write cache", func(p *patient) {
		p.facts(func(f *blockdev.Facts, _ *blockdev.Features) { f.Removable, f.WriteCache = true, "write through" })
	}, boot.Warning, "sends no flush", 0},
	{"unknown write cache", func(p *patient) {
		p.facts(func(f *blockdev.Facts, _ *blockdev.Features) { f.Kind, f.WriteCache = "block device", "" })
	}, boot.Warning, "has a write cache is unknown", 0},
	{"unreliable eMMC", func(p *patient) {
		p.facts(func(f *blockdev.Facts, _ *blockdev.Features) { f.EMMC = &blockdev.EMMC{} })
	}, boot.Warning, "no write reliability", 0},
	{"worn eMMC", func(p *patient) {
		p.facts(func(f *blockdev.Facts, _ *blockdev.Features) {
			f.EMMC = &blockdev.EMMC{Reliable: true, Used: 100, PreEOL: 3}
		})
	}, boot.Warning, "100 % of its life", 0},
	{"no sync_file_range", func(p *patient) {
		p.facts(func(_ *blockdev.Facts, has *blockdev.Features) { has.SyncRange = false })
	}, boot.Warning, "sync_file_range does not work", 0},
	{"no O_DIRECT for the engine", func(p *patient) {
		p.edit("[boot]", "engine = \"direct\"\n[boot]")
		p.facts(func(_ *blockdev.Facts, has *blockdev.Features) { has.Direct = false })
	}, boot.Failure, "O_DIRECT does not work", ExitFailed},
	{"no BLKZEROOUT", func(p *patient) {
		p.facts(func(_ *blockdev.Facts, has *blockdev.Features) { has.ZeroOut = false })
	}, boot.Warning, "BLKZEROOUT does not work", 0},
	{"no efivarfs", func(p *patient) {
		p.edit(`backend = "grub"`, `backend = "efi"`)
		p.machine.EFI = func() error { return errors.New("mounting efivarfs: no such device") }
	}, boot.Failure, "mounting efivarfs", ExitFailed},

	{"state lost", func(p *patient) {
		p.Sh(`dd if=/dev/urandom of=disk.img bs=1M seek=41 count=1 conv=notrunc status=none`)
	}, boot.Warning, "both copies are lost", 0},
	{"a copy of the state damaged", func(p *patient) {
		p.remember(func(s *state.State) { s.Floor = 1 })
		p.Sh(`printf X | dd of=disk.img bs=1 seek=$((41*1024*1024+40)) conv=notrunc status=none`)
	}, boot.Warning, "copy 1 is damaged", 0},
	{"no folder for the state", func(p *patient) { p.Configure(`state = "nosuch/state"`, "") }, boot.Failure, "the folder of the state store", ExitBootState},
	{"tiny state", func(p *patient) { p.Configure(`state = { device = "PARTLABEL=state", offset = 0, size = 4096 }`, "") }, boot.Failure, "expected at least 8192", ExitBootState},

	{"no grubenv", func(p *patient) {
		p.Sh(`head -c 1024 /dev/zero > zero; mcopy -o -i disk.img@@1M zero ::/grub/grubenv`)
	}, boot.Failure, "does not begin with", ExitBootState},
	{"running slot not good", func(p *patient) { p.grubenv("A_TRY=1") }, boot.Warning, "was not marked good: an install is refused", 0},
	{"running slot not in the order", func(p *patient) { p.grubenv("ORDER=B A_OK=0") }, boot.Warning, "does not allow it to boot", 0},
	{"no slot", func(p *patient) { p.grubenv("A_OK=0 B_OK=0") }, boot.Failure, "finds no slot to boot", ExitBootState},
	{"no fallback", func(p *patient) { p.grubenv("B_OK=0 ORDER=A") }, boot.Info, "has no fallback", 0},
	{"tries that nobody counts", func(p *patient) { p.edit("tries = 1", "tries = 9") }, boot.Warning, "counts 1 at most", 0},
	{"environment damaged", func(p *patient) {
		p.uboot("")
		p.Sh(`printf X | dd of=disk.img bs=1 seek=1050000 conv=notrunc status=none`)
	}, boot.Warning, "environment copy 1", 0},
	{"no second copy", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 } ]`)
	}, boot.Failure, "environment", ExitBootState},
	{"copies overlap", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=env", offset = 0x2000, size = 0x4000 } ]`)
	}, boot.Failure, "overlaps copy 1", ExitIncompatible},
	{"copies of two sizes", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=env", offset = 0x4000, size = 0x2000 } ]`)
	}, boot.Failure, "has another size than copy 1", ExitIncompatible},
	{"environment inside a slot", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=rootfs_b", offset = 0, size = 0x4000 } ]`)
	}, boot.Failure, "which an install overwrites", ExitIncompatible},
	{"environment over a partition", func(p *patient) {
		p.uboot(`[ { device = "` + p.Path("disk.img") + `", offset = 0x100000, size = 0x4000 }, { device = "` + p.Path("disk.img") + `", offset = -16384, size = 0x4000 } ]`)
	}, boot.Failure, `overlaps partition 1 "env"`, ExitIncompatible},
	{"environment past the end", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=env", offset = 0x100000, size = 0x4000 } ]`)
	}, boot.Failure, "reaches past the end", ExitIncompatible},
	{"environment off its sectors", func(p *patient) {
		p.uboot(`[ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=env", offset = 0x4010, size = 0x4000 } ]`)
	}, boot.Warning, "does not consist of whole sectors", -1},
}

// TestDoctor plants every fault by itself. Each is reported with its severity, and with a remedy unless it is only worth
// knowing; the device without one has no finding.
func TestDoctor(t *testing.T) {
	for _, uboot := range []bool{false, true} {
		p := newPatient(t)
		if uboot {
			p.uboot("")
		}
		if found, code := p.examine(); len(found) > 0 || code != 0 {
			t.Errorf("a healthy device (U-Boot: %v): exit %d, %+v", uboot, code, found)
		}
	}
	for _, fault := range planted {
		t.Run(strings.ReplaceAll(fault.name, " ", "-"), func(t *testing.T) {
			p := newPatient(t)
			fault.plant(p)
			found, code := p.examine()
			hit := false
			for _, f := range found {
				if f.Severity == fault.severity && strings.Contains(f.Evidence, fault.words) {
					hit = true
					if f.Remedy == "" && f.Severity != boot.Info || f.Check == "" {
						t.Errorf("%+v has no remedy or no check", f)
					}
				}
			}
			if !hit {
				t.Errorf("no %s with %q among %+v", fault.severity, fault.words, found)
			}
			if fault.code >= 0 && code != fault.code {
				t.Errorf("exit %d; want %d: %+v", code, fault.code, found)
			}
		})
	}
	if len(planted) < 25 {
		t.Errorf("%d faults are planted", len(planted))
	}
}

// TestDoctorMounted: a slot that is mounted is named with its mount point, on a real block device.
func TestDoctorMounted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	p := newPatient(t)
	node, err := exec.Command("losetup", "-P", "-f", "--show", p.Path("disk.img")).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	loop := strings.TrimSpace(string(node))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	part := loop + "p3"
	if _, err := os.Stat(part); err != nil {
		t.Skipf("the kernel makes no nodes of partitions: %v", err)
	}
	p.edit("disk.img", loop)
	p.Sh("mkfs.ext4 -q $0; mkdir mnt; mount $0 mnt", part)
	t.Cleanup(func() { _ = exec.Command("umount", p.Path("mnt")).Run() })
	found, code := p.examine()
	if said, _ := json.Marshal(found); code != ExitIncompatible || !strings.Contains(string(said), "mounted on "+filepath.Clean(p.Path("mnt"))) {
		t.Errorf("exit %d, %s", code, said)
	}
}

// TestDoctorRepairsTable damages either copy of the disk's partition table: one finding, which --repair restores.
func TestDoctorRepairsTable(t *testing.T) {
	for name, seek := range map[string]string{"primary": "1", "backup": "$(($(stat -c %s disk.img) / 512 - 1))"} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t)
			before := p.Sh("sha256sum disk.img")
			p.Sh("dd if=/dev/zero of=disk.img bs=512 seek=" + seek + " count=1 conv=notrunc status=none")
			damaged := func() bool {
				found, _ := p.examine()
				return slices.ContainsFunc(found, func(f doctor.Finding) bool { return strings.Contains(f.Evidence, name+" partition table at sector") })
			}
			if !damaged() {
				t.Error("the doctor does not find the damage")
			}
			if err := repairBoot(p.Context(), bootOptions{config: p.Path("config.toml")}, Env{Stdout: io.Discard, Stderr: io.Discard}); err != nil {
				t.Fatal(err)
			}
			if after := p.Sh("sha256sum disk.img"); damaged() || after != before {
				t.Errorf("after the repair the disk is %s; want %s", after, before)
			}
		})
	}
}
