package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/grub"
	"updater/boot/mtd"
	"updater/boot/uboot"
	"updater/device/config"
	"updater/internal/atomicfile"
)

// syncFiles syncs the file systems that the boot loader reads files from.
func (d *Device) syncFiles() error {
	for _, dir := range d.folders {
		if err := syncFS(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncFS writes out the whole file system of a path, then flushes the drive's cache: syncfs(2) alone does not flush it on FAT.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("syncing the file system of %s: %w", path, os.NewSyscallError("syncfs", err))
	}
	return f.Sync()
}

func (d *Device) openGRUB(booted string, mode blockdev.Mode) (boot.Backend, error) {
	c := d.Config.Boot
	o := grub.Options{Slots: d.Config.SlotNames(), Dialect: grub.Dialect(c.Dialect), Name: c.Env.File}
	switch area, path, err := d.openFile(c.Env.File, mode); {
	case err == nil:
		o.Area = area
	case path != "" && missing(path):
		o.Create = func(data []byte) error { return createFile(path, data) }
	default:
		return nil, err
	}
	return grub.New(o, booted)
}

// openFile opens a file of boot state: one on a mounted path, or PARTITION:/PATH in a FAT or ext4 file system of the disk. Where that
// partition is mounted the file is opened through the mount, so that both share one page cache; path is its name then.
func (d *Device) openFile(env string, mode blockdev.Mode) (_ *blockdev.Device, path string, err error) {
	if env == "" {
		return nil, "", config.Requestf("boot.env is missing; expected the path of a file, or PARTITION:/PATH")
	}
	spec, file, inPartition := strings.Cut(env, ":/")
	if inPartition {
		p, err := d.find("boot.env", spec)
		if err != nil {
			return nil, "", err
		}
		mount, err := blockdev.MountPoint(p.Path)
		if err != nil {
			return nil, "", err
		}
		if mount == "" {
			return d.unmounted(p, file, mode)
		}
		env = filepath.Join(mount, file)
	}
	return d.mounted(env, mode)
}

// missing reports whether a file does not exist or is empty.
func missing(path string) bool {
	info, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// createFile makes a file that is complete or absent after a power cut, and that a boot loader which replays no journal can read.
func createFile(path string, data []byte) error {
	if err := atomicfile.Write(path, data, 0o644); err != nil {
		return err
	}
	return syncFS(filepath.Dir(path))
}

func (d *Device) openUBoot(booted string, mode blockdev.Mode) (boot.Backend, error) {
	o, err := d.ubootOptions(mode)
	if err != nil {
		return nil, err
	}
	return uboot.New(o, booted)
}

func (d *Device) ubootOptions(mode blockdev.Mode) (o uboot.Options, err error) {
	configs, err := d.ubootAreas()
	if err != nil {
		return o, err
	}
	c := d.Config.Boot
	o = uboot.Options{Slots: d.Config.SlotNames(), Dialect: uboot.Dialect(c.Dialect), Flags: uboot.Flags(c.Flags), GoodTries: max(3, c.Tries), Names: ubootNames(c.Variables)}
	for _, a := range configs {
		area, err := d.openEnvironment(a, mode)
		if err != nil {
			return o, err
		}
		o.Areas = append(o.Areas, area)
	}
	return o, nil
}

// ubootNames are the variables of U-Boot by the keys of boot.variables.
func ubootNames(v map[string]string) uboot.Names {
	return uboot.Names{
		Order: v["order"], Left: v["left"], Active: v["active"], Available: v["upgrade_available"],
		Count: v["bootcount"], Limit: v["bootlimit"], Bad: v["bad"],
	}
}

// flashNode matches the character devices of flash.
var flashNode = regexp.MustCompile(`^/dev/mtd\d+$`)

// ubiNode matches UBI volumes, as fw_env.config may name them.
var ubiNode = regexp.MustCompile(`^/dev/ubi\d+(_\d+$|:)`)

// openEnvironment opens one copy of U-Boot's environment, also in flash.
func (d *Device) openEnvironment(a config.Area, mode blockdev.Mode) (boot.Area, error) {
	if ubiNode.MatchString(a.Device) {
		return nil, config.Requestf("boot: %s is a UBI volume, which is not supported; keep U-Boot's environment on MTD partitions outside of UBI "+
			"(CONFIG_ENV_IS_IN_NAND or _SPI_FLASH), or use boot.backend custom", a.Device)
	}
	if !flashNode.MatchString(a.Device) {
		return d.openArea(a, mode)
	}
	flash, err := mtd.Open(a.Device, mode != blockdev.ReadOnly)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, flash.Close)
	return mtd.New(flash, a.Offset, a.Size, a.Blocks)
}

func (d *Device) ubootAreas() ([]config.Area, error) {
	b := d.Config.Boot
	if (b.FWEnvConfig == "") == (len(b.Env.Areas) == 0) {
		return nil, config.Requestf("boot: expected either env = [ ... ] or fw_env_config for the uboot backend")
	}
	if b.FWEnvConfig == "" {
		return b.Env.Areas, nil
	}
	f, err := os.Open(b.FWEnvConfig)
	if err != nil {
		return nil, config.Requestf("boot.fw_env_config: %w", err)
	}
	defer f.Close()
	parsed, err := uboot.ParseFWEnvConfig(f)
	if err != nil {
		return nil, config.Requestf("boot.fw_env_config %s: %w", b.FWEnvConfig, err)
	}
	var areas []config.Area
	for _, a := range parsed {
		areas = append(areas, config.Area(a))
	}
	return areas, nil
}

// openArea opens a raw area: in a partition of the disk, in the disk itself, or in a file. When the disk is an image file, a device path
// means that file or a partition of it. PARTITION:/PATH is a file in a FAT or ext4 partition of the disk.
func (d *Device) openArea(a config.Area, mode blockdev.Mode) (*blockdev.Device, error) {
	if strings.Contains(a.Device, ":/") {
		area, _, err := d.openFile(a.Device, mode)
		return area, err
	}
	mode = shared(mode)
	isNode := strings.HasPrefix(a.Device, "/dev/")
	if p, err := d.find("boot.env or state", a.Device); err == nil {
		return d.keep(p.OpenWindow(a.Offset, a.Size, mode))
	} else if !isNode && a.Device != d.disk.Path() && strings.Contains(a.Device, "=") {
		return nil, err
	}
	path := a.Device
	if isNode && d.disk.IsFile() {
		path = d.disk.Path()
	}
	if mode != blockdev.ReadOnly {
		restore, err := allowWrites("/sys", path)
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, restore)
	}
	return d.keep(blockdev.OpenPath(path, a.Offset, a.Size, mode))
}

// emmcBoot matches the hardware boot partitions of an eMMC, which the kernel write-protects.
var emmcBoot = regexp.MustCompile(`^mmcblk\d+boot[01]$`)

// allowWrites lifts the write protection of an eMMC's boot partition (kernel, Documentation/driver-api/mmc, force_ro) and returns a
// function that restores it. For every other path it does nothing.
func allowWrites(sys, path string) (restore func() error, err error) {
	name := filepath.Base(path)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		name = filepath.Base(real)
	}
	if !emmcBoot.MatchString(name) {
		return func() error { return nil }, nil
	}
	knob := filepath.Join(sys, "class/block", name, "force_ro")
	old, err := os.ReadFile(knob)
	if err == nil && strings.TrimSpace(string(old)) != "0" {
		err = os.WriteFile(knob, []byte("0"), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("lifting the write protection of %s: %w", path, err)
	}
	return func() error { return os.WriteFile(knob, old, 0) }, nil
}
