// Command demo simulates, in QEMU, the life of an A/B device whose slots have two partitions, a root file system and an
// app: GRUB boots slot A; the recovery's u-root initramfs installs a signed release, a Debian and its app, from a
// stick into slot B; the power fails between the two images, and A still boots; the second try goes on from
// there, B comes up with both and marks itself good; another release hangs at boot, the watchdog resets the
// machine, and GRUB falls back to B.
//
// The round-trip test (build tag vm) runs the same story. Only the hardware is simulated.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// story is one device with its two sticks.
type story struct {
	builder *abdisk.Builder
	root    string // of the source tree
	dir     string // of this device: disk and firmware variables
	disk    string
	updates [2]update // the good release, and the one that hangs
	timeout time.Duration
	console io.Writer // the guest's serial console; nil: nowhere
	say     func(format string, a ...any)
	steps   []step
}

// update is a stick with a release, and its images.
type update struct{ stick, rootfs, app string }

// step is one line of the closing table.
type step struct {
	what, evidence string
	took           time.Duration
}

// recoveryModules are the drivers of the recovery: those of the virtual disk and of a stick.
const recoveryModules = "virtio_pci,virtio_blk,vfat,nls_cp437,nls_iso8859-1,nls_ascii,ext4"

// prepare builds everything: images, keys, signed releases, initramfs, disk and sticks.
func (s *story) prepare(ctx context.Context) error {
	kernel, err := s.builder.Kernel(ctx)
	if err != nil {
		return err
	}
	key, err := s.builder.Keys(ctx)
	if err != nil {
		return err
	}
	first, err := s.images(ctx, abdisk.Small, "1")
	if err != nil {
		return err
	}
	for i, kind := range []abdisk.Kind{abdisk.Debian, abdisk.Hang} {
		if s.updates[i], err = s.release(ctx, kind, strconv.Itoa(i+2)); err != nil {
			return err
		}
	}
	config := filepath.Join(s.dir, "config.toml")
	if err := os.WriteFile(config, []byte(abdisk.AppConfig), 0o644); err != nil {
		return err
	}
	initramfs := filepath.Join(s.dir, "initramfs.cpio.zst")
	if err := s.make(ctx, "initramfs", "KERNEL_VERSION="+kernel.Version, "MODULES_ROOT="+kernel.Root, "MODULES="+recoveryModules,
		"KEYRING="+key, "CONFIG="+config, "INITRAMFS="+initramfs); err != nil {
		return err
	}
	s.disk = filepath.Join(s.dir, "disk.img")
	return s.builder.Disk(ctx, abdisk.DiskConfig{
		Path: s.disk, SlotA: first.rootfs, AppA: first.app, FillB: 0x5a, RecoveryKernel: kernel.Image, Recovery: initramfs,
		Append: "demo.act=poweroff", WatchdogTimeout: 90 * time.Second,
	})
}

// images builds the images of a slot.
func (s *story) images(ctx context.Context, kind abdisk.Kind, version string) (u update, err error) {
	if u.rootfs, err = s.builder.Slot(ctx, abdisk.SlotConfig{Kind: kind, Version: version, App: true}); err == nil {
		u.app, err = s.builder.App(ctx, version)
	}
	return u, err
}

// release builds a stick with a signed release.
func (s *story) release(ctx context.Context, kind abdisk.Kind, version string) (update, error) {
	u, err := s.images(ctx, kind, version)
	if err != nil {
		return u, err
	}
	dir := filepath.Join(s.dir, "release-"+version)
	files, err := s.builder.Release(ctx, dir, []string{"--product", "demo", "--version", version}, "rootfs="+u.rootfs, "app="+u.app)
	if err != nil {
		return u, err
	}
	u.stick = filepath.Join(s.dir, "stick-"+version+".img")
	return u, s.builder.Stick(ctx, u.stick, files)
}

func (s *story) make(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "make", append([]string{"-s", "-C", s.root}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return nil
}

// start switches the machine on, with the stick when it is not "".
func (s *story) start(ctx context.Context, what, stick string) (*qemu.Machine, error) {
	disks := []qemu.Disk{{Path: s.disk, Serial: "device"}}
	if stick != "" {
		disks = append(disks, qemu.Disk{Path: stick, Serial: "stick", ReadOnly: true})
	}
	return qemu.Start(ctx, qemu.Config{
		Name: what, Disks: disks, OVMFVars: filepath.Join(s.dir, "vars.fd"), Timeout: s.timeout, Log: s.console,
	})
}

// boot runs the machine once, with the stick when it is not "", until it ends, and expects every
// pattern in turn and that end.
func (s *story) boot(ctx context.Context, what, stick string, end qemu.End, patterns ...string) error {
	start := time.Now()
	m, err := s.start(ctx, what, stick)
	if err != nil {
		return err
	}
	defer m.PowerCut()
	var evidence string
	for _, p := range patterns {
		match, err := m.Expect(p)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		evidence = match[0]
		s.say("    %5.1f s  %s", time.Since(start).Seconds(), evidence)
	}
	if err := m.Wait(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if m.End() != end {
		return fmt.Errorf("%s: the machine ended by %s, expected %s; its console:\n%s", what, m.End(), end, strings.Join(m.Lines(), "\n"))
	}
	for _, line := range m.Lines() {
		if budgets.MatchString(line) {
			s.say("             %s", line)
		}
	}
	took := time.Since(start)
	s.say("    %5.1f s  (%s)", took.Seconds(), m.End())
	s.steps = append(s.steps, step{what: what, evidence: evidence, took: took})
	return nil
}

// budgets are the lines in which the initramfs reports its start time, run time and memory.
var budgets = regexp.MustCompile(`initramfs is up after|done after`)

// The acts, in their order. Each is one boot of the machine.

func (s *story) bootFirst(ctx context.Context) error {
	s.say("GRUB boots slot A, which holds version 1")
	return s.boot(ctx, "slot A boots", "", qemu.PowerOff, `GRUB: booting slot A`, `slot A is good`, `DEMO slot=A version=1 app=1 up`)
}

// install requests the recovery and boots it with the i-th stick.
func (s *story) install(ctx context.Context, i int, slot string) error {
	s.say("A person asks for the recovery, with release %d on a stick: it installs into slot %s", i+2, slot)
	if err := (abdisk.Env{Disk: s.disk}).BootRecovery(ctx); err != nil {
		return err
	}
	return s.boot(ctx, fmt.Sprintf("the recovery installs release %d", i+2), s.updates[i].stick, qemu.Reset,
		`GRUB: booting the recovery`, `checking the signature`, `writing rootfs`, `writing app`, `reading back rootfs`, `reading back app`,
		`installed .* into slot `+slot+`.*`, `slot `+slot+` boots next`)
}

// cut pulls the plug in the middle of an install, when the first image is written and the second one begins.
func (s *story) cut(ctx context.Context) error {
	const at = `writing app`
	s.say("The power fails in the middle of writing slot B: the root file system of release 2 is written, its app is not")
	if err := (abdisk.Env{Disk: s.disk}).BootRecovery(ctx); err != nil {
		return err
	}
	start := time.Now()
	m, err := s.start(ctx, "power cut", s.updates[0].stick)
	if err != nil {
		return err
	}
	defer m.PowerCut()
	if _, err := m.Expect(at); err != nil {
		return fmt.Errorf("power cut: %w", err)
	}
	m.PowerCut()
	s.say("    %5.1f s  (cut at %q)", time.Since(start).Seconds(), at)
	return s.boot(ctx, "after a power cut slot A boots", "", qemu.PowerOff, `GRUB: booting slot A`, `slot A is good`, `DEMO slot=A version=1 app=1 up`)
}

func (s *story) bootSecond(ctx context.Context) error {
	s.say("GRUB tries slot B; the new Debian comes up with its app and marks itself good")
	return s.boot(ctx, "slot B boots and is marked good", "", qemu.PowerOff, `GRUB: booting slot B`, `slot B is good`, `DEMO slot=B version=2 app=2 up`)
}

func (s *story) hang(ctx context.Context) error {
	s.say("GRUB tries slot A; release 3 hangs")
	return s.boot(ctx, "slot A hangs, the watchdog resets", "", qemu.Watchdog, `GRUB: booting slot A`, `DEMO slot=A version=3 hangs`)
}

func (s *story) fallBack(ctx context.Context) error {
	s.say("The next boot falls back to slot B")
	return s.boot(ctx, "GRUB falls back to slot B", "", qemu.PowerOff, `GRUB: booting slot B`, `slot B is good`, `DEMO slot=B version=2 app=2 up`)
}

// differs compares the disk from start on with the image that was installed there, holes as zeros, and names the
// first byte that differs; "" when none does.
func (s *story) differs(start int64, image string) (string, error) {
	disk, err := os.Open(s.disk)
	if err != nil {
		return "", err
	}
	defer disk.Close()
	img, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer img.Close()
	want, got := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := img.ReadAt(want, off)
		if n == 0 && err == io.EOF {
			return "", nil
		}
		if err != nil && err != io.EOF {
			return "", err
		}
		if _, err := disk.ReadAt(got[:n], start+off); err != nil {
			return "", err
		}
		for i := range n {
			if want[i] != got[i] {
				return fmt.Sprintf("byte %d is %#02x, the image has %#02x", off+int64(i), got[i], want[i]), nil
			}
		}
		off += int64(n)
	}
}
