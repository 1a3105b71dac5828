package recovery

import (
	"context"
	"fmt"

	"updater/initramfs"
)

// Kexec implements initramfs.Device: it loads the slot that boots next and spends its try, as the boot loader would. A slot that does not
// hold one whole release, or one below the floor, is not started. When it fails nothing is lost: the device restarts through its boot loader.
func (d *Device) Kexec(ctx context.Context) (ready bool, err error) {
	k := d.Config.Recovery.Kexec
	if k.Kernel == "" {
		return false, nil
	}
	dev, err := d.open()
	if err != nil {
		return false, err
	}
	defer dev.Close()
	st, err := dev.BootState(ctx)
	if err != nil || st.Next == "" {
		return false, err
	}
	role, cmdline, err := d.Config.KexecOf(st.Next)
	if err != nil {
		return false, err
	}
	p, err := dev.Partition(st.Next, role)
	if err != nil {
		return false, err
	}
	if err := initramfs.LoadKexec(p.Path, initramfs.Kexec{Kernel: k.Kernel, Initrd: k.Initrd, Cmdline: cmdline}); err != nil {
		return false, fmt.Errorf("slot %s: %w", st.Next, err)
	}
	if err := dev.SpendTry(ctx, st.Next); err != nil {
		return false, err
	}
	d.Say("starting slot %s by kexec: %s", st.Next, cmdline)
	return true, nil
}
