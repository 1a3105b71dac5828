package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/initramfs/build"
)

// check reads the configuration and the keyring as the packed program will, from the files of the archive alone, and refuses what cannot
// work there. An initramfs without a configuration is not checked.
func check(o build.Options) error {
	if o.Config == "" {
		return nil
	}
	policy, err := build.Policy(o)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "mkinitramfs-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(root) }()
	for name, data := range policy {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
			return err
		}
	}
	inside := filepath.Join(root, config.DefaultPath)
	c, err := config.LoadOther(inside, device.Backends())
	if err == nil {
		err = errors.Join(device.CheckSlots(c), trusts(c, root), places(c))
	}
	if err != nil { // the person knows the file by another name
		return errors.New(strings.NewReplacer(inside, o.Config, root+"/", "/").Replace(err.Error()))
	}
	return nil
}

// trusts checks that every file that the configuration names is in the archive, and that the keyring holds a certificate.
func trusts(c *config.Config, root string) error {
	for _, p := range append([]*string{&c.Source.CA, &c.Source.ClientCert, &c.Source.ClientKey, &c.Source.TokenFile}, pointers(c.Keyring)...) {
		if *p == "" {
			continue
		}
		if !strings.HasPrefix(*p, root+"/") {
			*p = filepath.Join(root, *p)
		}
		if _, err := os.Stat(*p); err != nil {
			return fmt.Errorf("%s is not in the archive; KEYRING is packed as keys, other files with POLICY as /etc/updater/NAME", *p)
		}
	}
	if _, err := c.Policy(nil, time.Time{}); err != nil {
		return fmt.Errorf("this recovery would trust nobody: %w", err)
	}
	return nil
}

func pointers(list []string) (all []*string) {
	for i := range list {
		all = append(all, &list[i])
	}
	return all
}

// places checks that no role and no state lies in a file system of the running system, of which an initramfs mounts none.
func places(c *config.Config) error {
	var errs []error
	for _, s := range c.Slot {
		for role := range s.Files {
			if p, ok := c.FileRole(s.Name, role); ok && p.Mounted() {
				errs = append(errs, fmt.Errorf("slot %s: role %s is the file %s below a mount point, and nothing is mounted in an initramfs; name the partition: PARTLABEL=NAME:/%s",
					s.Name, role, p, p.Path))
			}
		}
	}
	for key, path := range map[string]string{"state": c.State.Device, "boot.env": c.Boot.Env.File, "boot.esp": c.Boot.ESP, "disk.path": c.Disk.Path} {
		if path != "" && !strings.Contains(path, "=") && !strings.HasPrefix(path, "/dev/") && filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s is the file %s of the running system, and nothing is mounted in an initramfs; name a device or a partition", key, path))
		}
	}
	return errors.Join(errs...)
}
