package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Kexec names the kernel of a slot to start without going through the firmware.
type Kexec struct {
	Kernel  string // path in the file system of the slot; an image kexec_file_load(2) accepts
	Initrd  string // path in the file system of the slot; "" for none
	Cmdline string
}

// kexecDir is the mount point of the slot.
const kexecDir = "/run/updater/slot"

// slotTypes are the supported file systems of such a slot.
var slotTypes = []string{"ext4", "squashfs", "vfat"}

// LoadKexec loads the kernel of a slot into memory; [StartKexec] starts it. The partition is mounted read-only meanwhile, and
// symbolic links cannot leave it.
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
			data = ext4ReadOnly
		}
		err := unix.Mount(partition, kexecDir, fs, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", fs, err))
	}
	return errors.Join(errs...)
}

// StartKexec flushes the file systems and starts the loaded kernel. It returns only on error.
func StartKexec() error { return restart(unix.LINUX_REBOOT_CMD_KEXEC) }
