package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Kexec says what a slot's file system holds to be started without the firmware.
type Kexec struct {
	Kernel  string // path in the file system, of an image that kexec_file_load(2) takes
	Initrd  string // "" is none
	Cmdline string
}

// kexecDir is where the slot is mounted meanwhile.
const kexecDir = "/run/updater/slot"

// slotTypes are the file systems that a slot may have for it.
var slotTypes = []string{"ext4", "squashfs", "vfat"}

// LoadKexec loads a slot's kernel into memory, from its partition, which is mounted read-only for that. The
// machine starts it with [StartKexec]. Links in the slot lead nowhere outside it.
func LoadKexec(partition string, k Kexec) (err error) {
	if err := os.MkdirAll(kexecDir, 0o755); err != nil {
		return err
	}
	if err := mountSlot(partition); err != nil {
		return fmt.Errorf("mounting %s: %w", partition, err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(kexecDir, 0)) }()
	root, err := os.OpenRoot(kexecDir)
	if err != nil {
		return err
	}
	defer root.Close()
	kernel, err := root.Open(filepath.Clean("./" + k.Kernel))
	if err != nil {
		return err
	}
	defer kernel.Close()
	initrd, flags := -1, unix.KEXEC_FILE_NO_INITRAMFS
	if k.Initrd != "" {
		f, err := root.Open(filepath.Clean("./" + k.Initrd))
		if err != nil {
			return err
		}
		defer f.Close()
		initrd, flags = int(f.Fd()), 0
	}
	if err := unix.KexecFileLoad(int(kernel.Fd()), initrd, k.Cmdline, flags); err != nil {
		return fmt.Errorf("loading the kernel %s: %w", k.Kernel, os.NewSyscallError("kexec_file_load", err))
	}
	return nil
}

func mountSlot(partition string) error {
	var errs []error
	for _, fs := range slotTypes {
		data := ""
		if fs == "ext4" {
			data = "noload"
		}
		err := unix.Mount(partition, kexecDir, fs, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", fs, err))
	}
	return errors.Join(errs...)
}

// StartKexec writes out what is dirty and starts the kernel that was loaded. It returns only an error.
func StartKexec() error { return restart(unix.LINUX_REBOOT_CMD_KEXEC) }
