package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"updater/boot"
	"updater/initramfs"
)

// KexecConfig says how a freshly written slot is started without the firmware. {slot} in the command line is
// the slot's name, {partition} what the configuration calls its partition.
type KexecConfig struct {
	Kernel  string `toml:"kernel"` // path in the slot; "" is a restart through firmware and boot loader
	Initrd  string `toml:"initrd"`
	Cmdline string `toml:"cmdline"`
}

func (k KexecConfig) check() error {
	if k.Kernel == "" && (k.Initrd != "" || k.Cmdline != "") {
		return errors.New("recovery.kexec.kernel is missing")
	}
	if k.Kernel != "" && !strings.Contains(k.Cmdline, "{slot}") && !strings.Contains(k.Cmdline, "{partition}") {
		return errors.New("recovery.kexec.cmdline names neither {slot} nor {partition}, so every slot would start the same system")
	}
	return nil
}

// Kexec implements initramfs.Device: it loads the slot that boots next and spends its try, as the boot loader
// would. When it fails nothing is lost: the restart takes the usual way.
func (d *recoverable) Kexec(ctx context.Context) (ready bool, err error) {
	k := d.config.Recovery.Kexec
	if k.Kernel == "" {
		return false, nil
	}
	dev, err := openWaiting(d.config, "")
	if err != nil {
		return false, err
	}
	defer dev.Close()
	st, err := dev.backend.State(ctx)
	if err != nil || st.Next == "" {
		return false, errors.Join(bootError("", "starting the next slot", err), nil)
	}
	role, err := d.config.role("")
	if err != nil {
		return false, err
	}
	spec, err := d.config.partition(st.Next, role)
	if err != nil {
		return false, err
	}
	p, err := dev.slotPartition(st.Next, role)
	if err != nil {
		return false, err
	}
	cmdline := strings.NewReplacer("{slot}", st.Next, "{partition}", spec).Replace(k.Cmdline)
	if err := initramfs.LoadKexec(p.Path, initramfs.Kexec{Kernel: k.Kernel, Initrd: k.Initrd, Cmdline: cmdline}); err != nil {
		return false, fmt.Errorf("slot %s: %w", st.Next, err)
	}
	if err := bootError(st.Next, "spending its try", boot.SpendTry(ctx, dev.backend, st.Next)); err != nil {
		return false, err
	}
	d.say("starting slot %s directly, as the boot loader would: %s", st.Next, cmdline)
	return true, nil
}

func (d *recoverable) say(format string, a ...any) {
	fmt.Fprintf(d.env.Stdout, "updater: "+format+"\n", a...)
}
