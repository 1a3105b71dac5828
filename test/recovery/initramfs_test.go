//go:build vm

package recovery

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// helper builds the initramfs and its surroundings. It boots with -kernel, without firmware, in a few seconds.
type helper struct {
	builder   *abdisk.Builder
	kernel    abdisk.Kernel
	vmlinux   string
	initramfs string
	dir       string // of this test
}

// anyDisk is the demo's configuration without a path: the disk with the slots is found.
var anyDisk = strings.Replace(abdisk.Config, "path = \"/dev/vda\"\n", "", 1)

// built has the initramfs of this run by configuration and modules.
var built = map[string]string{}

// newHelper builds binary and initramfs with a configuration. The drivers are sets, not a list for this machine.
func newHelper(t *testing.T, config string, modules string, policy ...string) *helper {
	t.Helper()
	rig := newRig(t)
	h := &helper{builder: rig.builder, dir: t.TempDir()}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	h.builder.Updater = filepath.Join(root, "bin/updater")
	if h.kernel, err = h.builder.Kernel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.vmlinux, err = h.builder.Vmlinux(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, err := h.builder.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made := config + modules + strings.Join(policy, " ")
	h.initramfs = built[made]
	if h.initramfs != "" {
		return h
	}
	file := filepath.Join(h.dir, "config.toml")
	put(t, file, []byte(config))
	h.initramfs = filepath.Join(h.builder.Dir, fmt.Sprintf("initramfs-%d", len(built)))
	built[made] = h.initramfs
	run(t, "make", "-s", "-C", root, "build", "initramfs", "KERNEL="+h.kernel.Image, "MODULES_ROOT="+h.kernel.Root, "MODULES="+modules,
		"KEYRING="+key, "CONFIG="+file, "POLICY="+strings.Join(policy, " "), "INITRAMFS="+h.initramfs)
	return h
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// image makes an image of noise with a hole in its middle.
func (h *helper) image(t *testing.T, name string, sizeMiB int, seed uint64) string {
	t.Helper()
	data := make([]byte, sizeMiB<<20)
	rnd := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = rnd.Read(data)
	clear(data[len(data)/4 : len(data)/2])
	path := filepath.Join(h.dir, name+".img")
	put(t, path, nil)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][2]int{{0, len(data) / 4}, {len(data) / 2, len(data)}} {
		if _, err := f.WriteAt(data[part[0]:part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// update makes the files of a signed update of an image.
func (h *helper) update(t *testing.T, image string, flags ...string) map[string]string {
	t.Helper()
	files, err := h.builder.Update(t.Context(), image, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// stick makes an update stick.
func (h *helper) stick(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	path := filepath.Join(h.dir, name+".stick")
	if err := h.builder.Stick(t.Context(), path, files); err != nil {
		t.Fatal(err)
	}
	return path
}

// disk makes the device's disk, with something in slot A, and the boot state given.
func (h *helper) disk(t *testing.T, name string, env ...string) string {
	t.Helper()
	path := filepath.Join(h.dir, name+".disk")
	if err := h.builder.Disk(t.Context(), abdisk.DiskConfig{Path: path, SlotA: h.image(t, "old-"+name, 4, 99), FillB: 0}); err != nil {
		t.Fatal(err)
	}
	if len(env) > 0 {
		if err := (abdisk.Env{Disk: path}).Set(t.Context(), env...); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

const bootArgs = "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests "

// start boots the initramfs. The clock runs until the test ends it.
func (h *helper) start(t *testing.T, c qemu.Config) *qemu.Machine {
	t.Helper()
	c.Kernel, c.Append = h.vmlinux, bootArgs+c.Append
	if c.Initrd == "" {
		c.Initrd = h.initramfs
	}
	if c.MemMiB == 0 {
		c.MemMiB = 256
	}
	if c.Timeout == 0 {
		c.Timeout = 6 * time.Minute
	}
	if os.Getenv("UPDATER_VM_CONSOLE") != "" {
		c.Log = t.Output()
	}
	c.Args = append([]string{"-cpu", "qemu64"}, c.Args...)
	m, err := qemu.Start(context.WithoutCancel(t.Context()), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.PowerCut)
	return m
}

// expect waits for the patterns in turn and logs their times.
func expect(t *testing.T, m *qemu.Machine, patterns ...string) {
	t.Helper()
	start := time.Now()
	for _, p := range patterns {
		match, err := m.Expect(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%6.1f s  %s", time.Since(start).Seconds(), match[0])
	}
}

// long skips a slow test unless UPDATER_VM_LONG is set.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("UPDATER_VM_LONG") == "" {
		t.Skip("one of the longer tests; make test-recovery runs it")
	}
}

// ends waits for the end of a machine and compares its cause.
func ends(t *testing.T, m *qemu.Machine, want qemu.End) {
	t.Helper()
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if m.End() != want {
		t.Fatalf("machine ended by %q; want %q; console:\n%s", m.End(), want, strings.Join(m.Lines(), "\n"))
	}
}

// wantSlot compares a slot with an image, holes as zeros.
func wantSlot(t *testing.T, disk, slot, image string) {
	t.Helper()
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start, _ := abdisk.SlotRange(slot)
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, start); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("slot %s does not hold %s", slot, image)
	}
}

func wantEnv(t *testing.T, disk string, want map[string]string) {
	t.Helper()
	got, err := abdisk.Env{Disk: disk}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("grubenv %s = %q; want %q (all: %v)", k, got[k], v, got)
		}
	}
}

// allSets are the drivers of a recovery for any machine.
const allSets = "virtio,storage,usb-storage,net,input,fs,watchdog"

// TestRecoverySticks: a device without a bootable slot refuses each wrong stick with its reason, and installs the right one, plugged in last.
func TestRecoverySticks(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	disk := h.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")
	good := h.image(t, "good", 8, 1)
	files := h.update(t, good)
	right := h.stick(t, "right", files)

	// Signed by another key.
	other := &abdisk.Builder{Dir: filepath.Join(h.dir, "other"), Updater: h.builder.Updater}
	if err := os.MkdirAll(other.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(h.dir, "foreign.bmap")
	data, err := os.ReadFile(files["image.bmap"])
	if err != nil {
		t.Fatal(err)
	}
	put(t, foreign, data)
	sig, err := other.Sign(t.Context(), foreign)
	if err != nil {
		t.Fatal(err)
	}
	wrong := h.stick(t, "wrong", map[string]string{"image.zst": files["image.zst"], "image.bmap": foreign, "image.bmap.asc": sig})

	// The label is there, the file system behind it is not.
	broken := h.stick(t, "broken", files)
	f, err := os.OpenFile(broken, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 20), 11); err != nil { // its geometry
		t.Fatal(err)
	}
	f.Close()

	// Another image than the signed one.
	swapped := h.stick(t, "swapped", map[string]string{
		"image.zst": h.update(t, h.image(t, "bad", 8, 2))["image.zst"], "image.bmap": files["image.bmap"], "image.bmap.asc": files["image.bmap.asc"],
	})

	m := h.start(t, qemu.Config{
		Name: "recovery", Append: "updater.mode=recover", Disks: []qemu.Disk{{Path: disk}}, Args: []string{"-device", "qemu-xhci"},
	})
	expect(t, m, `initramfs is up after`, `no slot is bootable`, `no medium with`, `trying again in`, `type a number`, `7  power off`)
	for _, c := range []struct{ stick, want string }{
		{wrong, `error: installing the update on .*: signature by key .*: the key is not in the keyring`},
		{broken, `error: update medium .*mounting its file system`},
		{swapped, `error: installing the update on .*bmap says`},
	} {
		if err := m.PlugUSB(filepath.Base(c.stick)[:4], c.stick); err != nil {
			t.Fatal(err)
		}
		expect(t, m, c.want, `trying again in`, `7  power off`)
		if err := m.Unplug(filepath.Base(c.stick)[:4]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	// A person looks at the slots, and tries to boot one that is half an image.
	if err := m.Type("3\r"); err != nil {
		t.Fatal(err)
	}
	expect(t, m, `slot A +bad`, `7  power off`)
	if err := m.Type("5\r"); err != nil {
		t.Fatal(err)
	}
	expect(t, m, `booting it once: it is marked bad`)
	if err := m.PlugUSB("right", right); err != nil {
		t.Fatal(err)
	}
	expect(t, m, `checking the signature`, `reading back`, `installed .* into slot`, `boots next`, `done after`)
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "A", good)
	wantEnv(t, disk, map[string]string{"ORDER": "A", "A_OK": "1", "A_TRY": "0", "B_OK": "0"})
	for _, line := range m.Lines() {
		if strings.Contains(line, "hardware watchdog") && strings.Contains(line, "armed") {
			t.Log(line)
			return
		}
	}
	t.Errorf("no hardware watchdog was armed; console:\n%s", strings.Join(m.Lines(), "\n"))
}

// TestRecoveryBuses: disk and stick are found on every bus, by drivers that were loaded for the hardware.
func TestRecoveryBuses(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	image := h.image(t, "image", 4, 3)
	stick := h.stick(t, "stick", h.update(t, image))
	for _, bus := range []string{"virtio", "nvme", "ahci", "scsi", "usb", "sd"} {
		t.Run(bus, func(t *testing.T) {
			disk := h.disk(t, bus)
			if bus == "sd" { // cards have a power of two
				if err := os.Truncate(disk, 2<<30); err != nil {
					t.Fatal(err)
				}
			}
			start := time.Now()
			m := h.start(t, qemu.Config{
				Name: bus, Args: []string{"-device", "qemu-xhci"},
				Disks: []qemu.Disk{{Path: disk, Bus: bus}, {Path: stick, Bus: "usb", ReadOnly: true}},
			})
			expect(t, m, `initramfs is up after`, `disk /dev/\w+ found after`, `update on /dev/`, `installed .* into slot B`)
			ends(t, m, qemu.Reset)
			t.Logf("%s: %.1f s", bus, time.Since(start).Seconds())
			wantSlot(t, disk, "B", image)
			wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1", "A_OK": "1"})
		})
	}
}

// The power fails twice in the middle of a recovery; the third run is undisturbed.
func TestRecoveryPowerCuts(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	image := h.image(t, "image", 24, 4)
	stick := h.stick(t, "stick", h.update(t, image))
	disk := h.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")
	config := qemu.Config{
		Name: "power cut", Append: "updater.mode=recover",
		Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}},
	}
	for _, at := range []string{`writing [2-6]0%`, `reading back`} {
		m := h.start(t, config)
		expect(t, m, at)
		m.PowerCut()
		wantEnv(t, disk, map[string]string{"ORDER": "", "A_OK": "0", "B_OK": "0"})
	}
	m := h.start(t, config)
	expect(t, m, `no slot is bootable`, `installed .* into slot A`)
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "A", image)
	wantEnv(t, disk, map[string]string{"ORDER": "A", "A_OK": "1", "A_TRY": "0"})
}

// TestRecoveryCopiedDisk: with a copy of the device's disk plugged in, neither is written until one is unplugged or the configuration names
// the serial number.
func TestRecoveryCopiedDisk(t *testing.T) {
	long(t)
	h := newHelper(t, anyDisk, allSets)
	image := h.image(t, "image", 4, 5)
	stick := h.stick(t, "stick", h.update(t, image))
	disk, other := h.disk(t, "device"), h.disk(t, "copy")
	disks := []qemu.Disk{{Path: other, Serial: "copy"}, {Path: disk, Serial: "own"}, {Path: stick, ReadOnly: true}}
	m := h.start(t, qemu.Config{Name: "copy", Disks: disks})
	expect(t, m, `error: several disks match \(with .*\): /dev/vda, /dev/vdb; unplug all but one`, `the boot loader keeps its choice`)
	ends(t, m, qemu.Reset)
	for _, d := range []string{disk, other} {
		wantEnv(t, d, map[string]string{"ORDER": "A B", "A_OK": "1", "B_OK": "0"})
	}
	// Without a battery-backed clock, too.
	told := newHelper(t, strings.Replace(abdisk.Config, "/dev/vda", "SERIAL=own", 1), allSets)
	m = told.start(t, qemu.Config{Name: "serial", Disks: disks, Args: []string{"-rtc", "base=1970-01-02"}})
	expect(t, m, `disk /dev/vdb is there`, `installed .* into slot B`)
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "B", image)
	wantEnv(t, other, map[string]string{"ORDER": "A B", "B_OK": "0"})
}

// TestRecoverySealed: a key or configuration appended to the initramfs replaces the file for the kernel, but the updater refuses to start.
func TestRecoverySealed(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	other := &abdisk.Builder{Dir: filepath.Join(h.dir, "other"), Updater: h.builder.Updater}
	if err := os.MkdirAll(other.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	key, err := other.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	image := other.Dir + "/image.img"
	put(t, image, bytes.Repeat([]byte("evil"), 1<<18))
	files, err := other.Update(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	stick := h.stick(t, "evil", files)
	initramfs, err := os.ReadFile(h.initramfs)
	if err != nil {
		t.Fatal(err)
	}
	initramfs = append(initramfs, make([]byte, -len(initramfs)&3)...) // the kernel looks for the next archive at multiples of four
	for name, file := range map[string]string{"further key": "etc/updater/keys/evil.asc", "replaced key": "etc/updater/keys/release.asc"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, file), data)
			cmd := exec.Command("cpio", "-o", "-H", "newc", "--quiet")
			cmd.Dir, cmd.Stdin = dir, strings.NewReader(file+"\n")
			appended, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			attacked := filepath.Join(dir, "initramfs")
			put(t, attacked, append(bytes.Clone(initramfs), appended...))
			disk := h.disk(t, strings.ReplaceAll(name, " ", "-"))
			m := h.start(t, qemu.Config{Name: name, Initrd: attacked, Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
			expect(t, m, `error: .*differs from the keyring and configuration packed`, `the boot state is unchanged`)
			ends(t, m, qemu.Reset)
			wantEnv(t, disk, map[string]string{"ORDER": "A B", "A_OK": "1", "B_OK": "0"})
			wantSlot(t, disk, "A", h.dir+"/old-"+strings.ReplaceAll(name, " ", "-")+".img")
		})
	}
}

// TestRecoveryStatusMode: the status mode prints the slots and ends as the command line asks; unknown options are logged and ignored.
func TestRecoveryStatusMode(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	m := h.start(t, qemu.Config{
		Name: "status", Append: "updater.mode=status updater.on_done=poweroff updater.insecure=1", Disks: []qemu.Disk{{Path: h.disk(t, "device")}},
	})
	expect(t, m, `ignoring unknown parameter "updater.insecure=1`, `boots next slot A`, `slot A +good`, `slot B +bad`, `done after`)
	ends(t, m, qemu.PowerOff)
}

// sparseImage makes a big image with noise in a quarter of it.
func (h *helper) sparseImage(t *testing.T, sizeMiB int) string {
	t.Helper()
	path := filepath.Join(h.dir, "big.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(sizeMiB) << 20); err != nil {
		t.Fatal(err)
	}
	rnd, block := rand.NewChaCha8([32]byte{7}), make([]byte, 1<<20)
	for at := 0; at < sizeMiB; at += 4 {
		_, _ = rnd.Read(block[:64<<10]) // the rest repeats, so that it compresses
		for i := 64 << 10; i < len(block); i += 64 << 10 {
			copy(block[i:], block[:64<<10])
		}
		if _, err := f.WriteAt(block, int64(at)<<20); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
