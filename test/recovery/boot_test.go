//go:build vm

package recovery

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// rig is one disk that boots several times.
type rig struct {
	builder *abdisk.Builder
	disk    string
	vars    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	if missing := abdisk.Missing(); missing != nil {
		t.Skip("missing Debian packages: ", strings.Join(missing, " "))
	}
	dir := os.Getenv("UPDATER_VM_DIR") // keeps the artefacts between runs
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = t.TempDir()
		}
		dir = filepath.Join(cache, "updater-vm")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	return &rig{
		builder: &abdisk.Builder{Dir: dir, Updater: placeholder(t, dir), Log: t.Output()},
		disk:    filepath.Join(out, "disk.img"), vars: filepath.Join(out, "vars.fd"),
	}
}

// placeholder builds a program that replaces the updater in tests of GRUB and the slots.
func placeholder(t *testing.T, dir string) string {
	src, bin := filepath.Join(t.TempDir(), "main.go"), filepath.Join(dir, "placeholder")
	const text = "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() { fmt.Println(\"PLACEHOLDER\", os.Args[1:]) }\n"
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, src)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

func (r *rig) slot(t *testing.T, kind abdisk.Kind, version string) string {
	t.Helper()
	img, err := r.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: kind, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (r *rig) makeDisk(t *testing.T, c abdisk.DiskConfig) {
	t.Helper()
	k, err := r.builder.Kernel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Path, c.RecoveryKernel = r.disk, k.Image
	if err := r.builder.Disk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// start boots the machine.
func (r *rig) start(t *testing.T, name string) *qemu.Machine {
	t.Helper()
	m, err := qemu.Start(context.WithoutCancel(t.Context()), qemu.Config{
		Name: name, Disks: []qemu.Disk{{Path: r.disk, Serial: "demo"}}, OVMFVars: r.vars, Timeout: 5 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// boot runs the machine once, expects each pattern in turn and then the given end, and logs the times.
func (r *rig) boot(t *testing.T, name string, end qemu.End, patterns ...string) {
	t.Helper()
	start, m := time.Now(), r.start(t, name)
	defer m.PowerCut()
	for _, p := range patterns {
		if _, err := m.Expect(p); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %5.1f s %s", name, time.Since(start).Seconds(), p)
	}
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %5.1f s %s", name, time.Since(start).Seconds(), m.End())
	if got := m.End(); got != end {
		t.Errorf("%s: machine ended by %q; want %q; console:\n%s", name, got, end, strings.Join(m.Lines(), "\n"))
	}
	if os.Getenv("UPDATER_VM_CONSOLE") != "" {
		t.Log(strings.Join(m.Lines(), "\n"))
	}
}

func (r *rig) wantEnv(t *testing.T, want map[string]string) {
	t.Helper()
	got, err := abdisk.Env{Disk: r.disk}.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("grubenv %s = %q; want %q (all: %v)", k, got[k], v, got)
		}
	}
}

// TestFallBackFromHang: the watchdog that GRUB armed resets a slot that hangs; its try is spent and the other slot boots.
func TestFallBackFromHang(t *testing.T) {
	r := newRig(t)
	r.makeDisk(t, abdisk.DiskConfig{SlotA: r.slot(t, abdisk.Hang, "3"), SlotB: r.slot(t, abdisk.Small, "2"), Append: "demo.act=reboot", WatchdogTimeout: 60 * time.Second})
	r.boot(t, "hang", qemu.Watchdog, `GRUB: booting slot A`, `DEMO slot=A version=3 hangs`)
	r.wantEnv(t, map[string]string{"A_TRY": "1", "B_TRY": "0"})
	r.boot(t, "fall back", qemu.Reset, `GRUB: booting slot B`, `PLACEHOLDER \[mark good\]`, `watchdog=active`, `DEMO slot=B version=2 up`)
	r.wantEnv(t, map[string]string{"A_TRY": "1", "B_TRY": "1"})
}

// TestRecoveryEntry: next_entry=recovery boots the recovery once and spends no try, then GRUB boots a slot; without a slot to try, GRUB boots
// the recovery.
func TestRecoveryEntry(t *testing.T) {
	r := newRig(t)
	k, err := r.builder.Kernel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := k.Initrd()
	if err != nil {
		t.Fatal(err)
	}
	recovery := filepath.Join(t.TempDir(), "initramfs") // it mounts slot B and prints another slot's name
	if err := os.WriteFile(recovery, initrd, 0o644); err != nil {
		t.Fatal(err)
	}
	small := r.slot(t, abdisk.Small, "2")
	r.makeDisk(t, abdisk.DiskConfig{
		SlotA: small, SlotB: small, Append: "demo.act=poweroff",
		Recovery: recovery, RecoveryAppend: "updater.slot=recovery root=PARTLABEL=rootfs_b demo.act=reboot",
	})
	env := abdisk.Env{Disk: r.disk}
	if err := env.BootRecovery(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.boot(t, "asked for", qemu.Reset, `GRUB: booting the recovery`, `DEMO slot=recovery version=2 up`)
	r.wantEnv(t, map[string]string{"next_entry": "", "A_TRY": "0", "B_TRY": "0"})
	r.boot(t, "then A", qemu.PowerOff, `GRUB: booting slot A`, `DEMO slot=A version=2 up`)
	if err := env.Set(t.Context(), "A_TRY=1", "B_OK=0"); err != nil {
		t.Fatal(err)
	}
	r.boot(t, "no slot left", qemu.Reset, `GRUB: booting the recovery`, `DEMO slot=recovery version=2 up`)
}

// TestDebianSlot: Debian boots in a slot and systemd feeds the watchdog: the machine still runs when GRUB's countdown would have expired. The
// countdown leaves time for a kernel that starts on a busy host.
func TestDebianSlot(t *testing.T) {
	r := newRig(t)
	const countdown = 90 * time.Second
	r.makeDisk(t, abdisk.DiskConfig{SlotA: r.slot(t, abdisk.Debian, "2"), WatchdogTimeout: countdown})
	m := r.start(t, "debian")
	defer m.PowerCut()
	if _, err := m.Expect(`GRUB: booting slot A`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for _, p := range []string{`PLACEHOLDER \[mark good\]`, `watchdog=active`, `DEMO slot=A version=2 up`} {
		if _, err := m.Expect(p); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("debian up after %.1f s", time.Since(start).Seconds())
	if m.Ended(time.Until(start.Add(countdown + 15*time.Second))) {
		t.Fatalf("machine ended by %q; want it to run on; console:\n%s", m.End(), strings.Join(m.Lines(), "\n"))
	}
}
