package main

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
)

// openBackend opens the configured boot loader's state.
func (d *device) openBackend(booted string, mode blockdev.Mode) (boot.Backend, error) {
	open := map[string]func(string, blockdev.Mode) (boot.Backend, error){
		"grub": d.openGrub, "uboot": d.openUBoot, "systemd-boot": d.openSystemdBoot, "efi": d.openEFI, "gpt": d.openGPT,
		"tryboot": d.openRaspberryPi, "android": d.openAndroid, "barebox": d.openBarebox, "custom": d.openCustom,
	}
	b, err := open[d.config.Boot.Backend](booted, mode)
	if err != nil {
		return nil, err
	}
	return boot.SyncFirst(b, d.syncFiles), nil
}

// syncFiles syncs the file systems that the boot loader reads files of.
func (d *device) syncFiles() error {
	for _, dir := range d.folders {
		if err := syncFS(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncFS writes out the whole file system of a path, then has the drive flush its cache: the first alone
// does not do that on FAT.
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

func (d *device) openGrub(booted string, mode blockdev.Mode) (boot.Backend, error) {
	c := d.config.Boot
	o := grub.Options{Slots: d.config.slotNames(), Dialect: grub.Dialect(c.Dialect), Name: c.Env.File}
	switch area, path, err := d.openGrubEnv(c.Env.File, mode); {
	case err == nil:
		o.Area = area
	case path != "" && missing(path):
		o.Create = func(data []byte) error { return createFile(path, data) }
	default:
		return nil, err
	}
	return grub.New(o, booted)
}

// openGrubEnv opens a grubenv: a file on a mounted path, or PARTITION:/PATH in a FAT or ext4 file system of
// the disk. Where that partition is mounted the file is reached through the mount, so that the file system's
// cache and ours are the same; path is its name then.
func (d *device) openGrubEnv(env string, mode blockdev.Mode) (_ *blockdev.Device, path string, err error) {
	if env == "" {
		return nil, "", usagef("boot.env is missing; expected the path of the grubenv, or PARTITION:/PATH")
	}
	spec, file, inPartition := strings.Cut(env, ":/")
	if inPartition {
		p, err := d.disk.Find(spec)
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

// missing says that a file is not there or has no bytes.
func missing(path string) bool {
	info, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// createFile makes a file so that it is there whole or not at all, and so that a boot loader that replays no
// journal sees it.
func createFile(path string, data []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncFS(filepath.Dir(path))
}

func (d *device) openUBoot(booted string, mode blockdev.Mode) (boot.Backend, error) {
	o, err := d.ubootOptions(mode)
	if err != nil {
		return nil, err
	}
	return uboot.New(o, booted)
}

func (d *device) ubootOptions(mode blockdev.Mode) (o uboot.Options, err error) {
	configs, err := d.ubootAreas()
	if err != nil {
		return o, err
	}
	c := d.config.Boot
	o = uboot.Options{Slots: d.config.slotNames(), Dialect: uboot.Dialect(c.Dialect), Flags: uboot.Flags(c.Flags), GoodTries: max(3, c.Tries)}
	if o.Names, err = c.names(); err != nil {
		return o, err
	}
	for _, a := range configs {
		area, err := d.openEnvironment(a, mode)
		if err != nil {
			return o, err
		}
		o.Areas = append(o.Areas, area)
	}
	return o, nil
}

// flashNode are the character devices of flash.
var flashNode = regexp.MustCompile(`^/dev/mtd\d+$`)

// ubiNode are UBI volumes, as fw_env.config may name them.
var ubiNode = regexp.MustCompile(`^/dev/ubi\d+(_\d+$|:)`)

// openEnvironment opens a copy of U-Boot's environment, in flash too.
func (d *device) openEnvironment(a uboot.AreaConfig, mode blockdev.Mode) (boot.Area, error) {
	if ubiNode.MatchString(a.Device) {
		return nil, usagef("boot: %s is a UBI volume, which is not supported; have U-Boot keep its environment on MTD partitions outside of UBI (CONFIG_ENV_IS_IN_NAND or _SPI_FLASH), or use boot.backend custom", a.Device)
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

func (d *device) ubootAreas() ([]uboot.AreaConfig, error) {
	b := d.config.Boot
	if (b.FWEnvConfig == "") == (len(b.Env.Areas) == 0) {
		return nil, usagef("boot: expected either env = [ ... ] or fw_env_config for the uboot backend")
	}
	if b.FWEnvConfig == "" {
		return b.Env.Areas, nil
	}
	f, err := os.Open(b.FWEnvConfig)
	if err != nil {
		return nil, usagef("boot.fw_env_config: %w", err)
	}
	defer f.Close()
	areas, err := uboot.ParseFWEnvConfig(f)
	if err != nil {
		return nil, usagef("boot.fw_env_config %s: %w", b.FWEnvConfig, err)
	}
	return areas, nil
}

// openArea opens a raw area: in a partition of the disk, in the disk itself, or in a file. A device path
// means the disk image file, or a partition of it, when the disk is one. PARTITION:/PATH is a file in a FAT
// partition of the disk.
func (d *device) openArea(a uboot.AreaConfig, mode blockdev.Mode) (*blockdev.Device, error) {
	if strings.Contains(a.Device, ":/") {
		area, _, err := d.openGrubEnv(a.Device, mode)
		return area, err
	}
	mode = shared(mode)
	isNode := strings.HasPrefix(a.Device, "/dev/")
	if p, err := d.disk.Find(a.Device); err == nil {
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

// emmcBoot are the hardware boot partitions of an eMMC, which the kernel write-protects by itself.
var emmcBoot = regexp.MustCompile(`^mmcblk\d+boot[01]$`)

// allowWrites lifts the write protection of an eMMC's boot partition (kernel, Documentation/driver-api/mmc,
// force_ro) and returns what puts it back. For every other path it does nothing.
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
