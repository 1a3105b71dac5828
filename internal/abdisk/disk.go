package abdisk

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The partitions of the demo disk, in MiB.
const (
	espStart   = 1
	espSize    = 64
	stateSize  = 8
	slotMiB    = 512
	appMiB     = 16
	slotAStart = espStart + espSize
	slotBStart = slotAStart + slotMiB
	stateStart = slotBStart + slotMiB
	appAStart  = stateStart + stateSize
	appBStart  = appAStart + appMiB
	diskSize   = appBStart + appMiB + 1
)

// DiskConfig describes the A/B disk.
type DiskConfig struct {
	Path            string        // image file; replaced when it exists
	SlotA           string        // image in slot A, which counts as good and boots first
	SlotB           string        // image in slot B; empty: B is not bootable and holds FillB
	AppA            string        // image of slot A's second role, see [SlotConfig.App]; optional
	FillB           byte          // fill byte of an empty slot B: anything but zero shows whether an update zeroes the holes of its images
	RecoveryKernel  string        // kernel of the recovery entry
	Recovery        string        // our initramfs
	Append          string        // further kernel arguments of the slots, for example "demo.act=reboot"
	RecoveryAppend  string        // further kernel arguments of the recovery
	Blank           bool          // no slot counts as good: a factory line sets it good
	WatchdogTimeout time.Duration // from GRUB to the reset of a slot that hangs; 0 means 90 s, at most 20 min
}

//go:embed files/grub.cfg
var grubCfg string

// kernelArgs are common to slots and recovery: the serial console, a reboot after a panic, no boot time lost without KVM, and no check of the
// timer, which panics when a busy host is late with its ticks.
const kernelArgs = "console=ttyS0 panic=10 quiet mitigations=off cryptomgr.notests no_timer_check"

const earlyCfg = `search --no-floppy --set=root --label ESPAB
set prefix=($root)/grub
configfile $prefix/grub.cfg
`

var grubModules = strings.Fields(`part_gpt fat ext2 normal configfile loadenv test linux echo search search_label regexp minicmd reboot halt
	true cat ls serial terminal iorw memrw`)

// Disk makes a whole disk image: a GPT with esp (FAT, labelled ESPAB, with GRUB, its environment block in /grub/grubenv and the recovery in
// /recovery), rootfs_a, rootfs_b, state, app_a and app_b, in this order, each found by its PARTLABEL. The file is sparse where the slots are empty.
func (b *Builder) Disk(ctx context.Context, c DiskConfig) error {
	if err := b.disk(ctx, c); err != nil {
		return fmt.Errorf("disk %s: %w", c.Path, err)
	}
	return nil
}

func (b *Builder) disk(ctx context.Context, c DiskConfig) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	esp, err := b.esp(ctx, c)
	if err != nil {
		return err
	}
	os.Remove(c.Path)
	f, err := os.Create(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(diskSize << 20); err != nil {
		return err
	}
	if err := partition(ctx, c.Path); err != nil {
		return err
	}
	if err := place(f, esp, espStart, espSize); err != nil {
		return err
	}
	if err := c.slots(f); err != nil {
		return err
	}
	return f.Close()
}

// slots writes the content of the slots.
func (c DiskConfig) slots(f *os.File) error {
	if err := place(f, c.SlotA, slotAStart, slotMiB); err != nil {
		return err
	}
	if c.AppA != "" {
		if err := place(f, c.AppA, appAStart, appMiB); err != nil {
			return err
		}
	}
	switch {
	case c.SlotB != "":
		return place(f, c.SlotB, slotBStart, slotMiB)
	case c.FillB != 0:
		return errors.Join(fill(f, c.FillB, slotBStart<<20, slotMiB<<20), fill(f, c.FillB, appBStart<<20, appMiB<<20))
	}
	return nil
}

// partition writes the table; every GUID is fixed.
func partition(ctx context.Context, path string) error {
	args := []string{"-a", "2048", "-U", "6f1b9f0a-50b7-4f0e-9d8c-0d6f0a5e1000"}
	for i, p := range []struct {
		name, kind string
		mib        int
	}{{"esp", "ef00", espSize}, {"rootfs_a", "8300", slotMiB}, {"rootfs_b", "8300", slotMiB}, {"state", "8300", stateSize},
		{"app_a", "8300", appMiB}, {"app_b", "8300", appMiB}} {
		n := strconv.Itoa(i + 1)
		args = append(args, "-n", fmt.Sprintf("%s:0:+%dM", n, p.mib), "-t", n+":"+p.kind, "-c", n+":"+p.name,
			"-u", fmt.Sprintf("%s:6f1b9f0a-50b7-4f0e-9d8c-0d6f0a5e100%s", n, n))
	}
	_, err := command{}.run(ctx, "sgdisk", append(args, path)...)
	return err
}

// ESP builds the file system of the ESP alone, as an image for a factory line, at the path of c.
func (b *Builder) ESP(ctx context.Context, c DiskConfig) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	image, err := b.esp(ctx, c)
	if err != nil {
		return fmt.Errorf("esp %s: %w", c.Path, err)
	}
	return os.Rename(image, c.Path)
}

// esp builds the FAT file system of the ESP and returns its path.
func (b *Builder) esp(ctx context.Context, c DiskConfig) (string, error) {
	timeout := c.WatchdogTimeout
	if timeout == 0 {
		timeout = 90 * time.Second
	}
	if timeout < 2*time.Second || timeout > 20*time.Minute {
		return "", fmt.Errorf("watchdog time-out %v is not between 2 s and 20 min", timeout)
	}
	ticks := int(timeout / (1200 * time.Millisecond)) // it expires twice, in units of 0.6 s
	cfg := strings.NewReplacer(
		"@TICKS@", strconv.Itoa(ticks), "@KERNEL@", kernelArgs, "@APPEND@", c.Append, "@RECOVERY@", c.RecoveryAppend,
	).Replace(grubCfg)
	early, efi := b.path("early.cfg"), b.path("BOOTX64.EFI")
	if err := os.WriteFile(early, []byte(earlyCfg), 0o644); err != nil {
		return "", err
	}
	args := append([]string{"-O", "x86_64-efi", "-p", "/grub", "-c", early, "-o", efi}, grubModules...)
	if _, err := (command{}).run(ctx, "grub-mkimage", args...); err != nil {
		return "", err
	}
	env := b.path("grubenv")
	os.Remove(env)
	aOK, bOK := "1", "1"
	if c.Blank {
		aOK = "0"
	}
	if c.Blank || c.SlotB == "" {
		bOK = "0"
	}
	for _, a := range [][]string{{env, "create"}, {env, "set", "ORDER=A B", "A_OK=" + aOK, "A_TRY=0", "B_OK=" + bOK, "B_TRY=0"}} {
		if _, err := (command{}).run(ctx, "grub-editenv", a...); err != nil {
			return "", err
		}
	}
	t := tree{}
	t.file("grub/grub.cfg", cfg)
	for name, from := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": efi, "grub/grubenv": env, "recovery/vmlinuz": c.RecoveryKernel, "recovery/initramfs": c.Recovery,
	} {
		if from == "" {
			continue // no recovery entry
		}
		if err := t.hostFile(name, from); err != nil {
			return "", err
		}
	}
	return b.path("esp.img"), b.makeFAT(ctx, b.path("esp.img"), "ESPAB", espSize, t)
}

// makeFAT makes a FAT32 image with a label and the files of t.
func (b *Builder) makeFAT(ctx context.Context, path, label string, sizeMiB int64, t tree) error {
	files := path + ".files"
	if err := t.unpack(ctx, files); err != nil {
		return err
	}
	defer os.RemoveAll(files)
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(path, sizeMiB<<20); err != nil {
		return err
	}
	if _, err := (command{}).run(ctx, "mkfs.vfat", "--invariant", "-F", "32", "-n", label, path); err != nil {
		return err
	}
	top, err := filepath.Glob(filepath.Join(files, "*"))
	if err != nil {
		return err
	}
	_, err = command{}.run(ctx, "mcopy", append(append([]string{"-s", "-m", "-i", path}, top...), "::/")...)
	return err
}

// Stick makes the image of an update stick: a FAT file system without partition table, labelled UPDATER, with the given files of the host in
// its folder updater/, under their names as keys, as Update and Release return them. It is as large as they need.
func (b *Builder) Stick(ctx context.Context, path string, files map[string]string) error {
	t, size := tree{}, int64(0)
	for name, from := range files {
		if err := t.hostFile("updater/"+name, from); err != nil {
			return fmt.Errorf("stick %s: %w", path, err)
		}
		size += int64(len(t["updater/"+name].body))
	}
	if err := b.makeFAT(ctx, path, "UPDATER", max(40, size>>20+size>>25+8), t); err != nil {
		return fmt.Errorf("stick %s: %w", path, err)
	}
	return nil
}

// place copies an image to a place on the disk, leaving out blocks of zeros: the disk is fresh.
func place(disk *os.File, image string, startMiB, maxMiB int64) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	zero, buf := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if n > 0 && at+int64(n) > maxMiB<<20 {
			return fmt.Errorf("image %s is larger than its partition (%d MiB)", image, maxMiB)
		}
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := disk.WriteAt(buf[:n], startMiB<<20+at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func fill(disk *os.File, b byte, at, size int64) error {
	buf := bytes.Repeat([]byte{b}, 1<<20)
	for end := at + size; at < end; at += int64(len(buf)) {
		if _, err := disk.WriteAt(buf, at); err != nil {
			return err
		}
	}
	return nil
}
