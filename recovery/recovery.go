package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/install"
	"updater/state"
	"updater/update"
)

// Device is the configured device as package initramfs sees it.
type Device struct {
	Config *config.Config
	Inputs install.Inputs
	// Events creates the sink for the events of one install.
	Events     func() Events
	ShowStatus func(s *device.Status) error // prints it for people
	Say        func(format string, a ...any)
	Work       *initramfs.Work // receives progress
	// Line runs a factory plan.
	Line func(ctx context.Context, plan string) error

	request *state.Request // that was read last
}

// Events receive the progress of an install and its result; err is the error of the last hook.
type Events interface {
	install.Events
	Installed(res *update.Result, err error) error
	// Failed receives the reason why nothing was installed, also when nothing was to be installed.
	Failed(err error)
}

// Trigger is the key or GPIO line that a person holds at boot to request the recovery.
func Trigger(r config.Recovery) initramfs.Trigger {
	g := r.GPIO
	return initramfs.Trigger{Key: initramfs.KeyCode(r.Key), GPIO: initramfs.GPIO{Chip: g.Chip, Line: g.Line, Low: g.ActiveLow, Pull: g.Pull}}
}

// FindDisk implements initramfs.Device. A second disk with the same partitions is refused, not chosen from.
func (d *Device) FindDisk() (string, error) { return device.FindDisk(d.Config) }

// Install implements initramfs.Device.
func (d *Device) Install(ctx context.Context, u initramfs.Update) error {
	return d.install(ctx, install.Request{Documents: install.Documents{Bmap: u.Bmap, Signature: u.Signature}, Image: u.Image})
}

// InstallURL implements initramfs.Device. The address may name {serial} and {mac}.
func (d *Device) InstallURL(ctx context.Context, url string) error {
	r := install.Request{Image: deviceURL(url), NotFailed: slices.Contains(d.Config.Recovery.URLs, url)}
	if d.request != nil && url == d.request.Source {
		r = install.Request{Image: url, Identity: d.request.Identity, Attempt: d.request.Attempt, NotFailed: d.request.Attempt > 0}
	}
	return d.install(ctx, r)
}

// Requested implements initramfs.Requester.
func (d *Device) Requested() (url string) {
	d.request = nil
	if len(d.Config.Slot) != 1 {
		return ""
	}
	known, err := device.ReadState(d.Config)
	if err != nil {
		return "" // the status reports what is wrong with the state store
	}
	if d.request = known.Pending(); d.request == nil {
		return ""
	}
	return d.request.Source
}

func (d *Device) install(ctx context.Context, r install.Request) error {
	if _, err := d.FindDisk(); err != nil { // a copy of it may have been plugged in since
		return err
	}
	events := d.watched()
	defer d.Work.Begin("finishing an install", initramfs.StepBound)
	r.Config, r.Initramfs = d.Config, true
	res, err := install.Run(ctx, r, d.Inputs, events)
	if res == nil {
		events.Failed(err)
	}
	if nothing, ok := errors.AsType[*update.NothingError](err); ok { // the slot's content was read back, and boots next
		d.Say("%v", nothing)
		return nil
	}
	if res == nil {
		return err
	}
	return events.Installed(res, err)
}

// Provision implements initramfs.Provisioner, where the configuration allows it. The plan is signed, wherever it comes from. The line
// gives up devices that do not answer, asks people and waits for its server without a limit, so its steps have no bound. Errors:
// [config.RequestError], those of a plan.
func (d *Device) Provision(ctx context.Context, plan string) error {
	if !d.Config.Recovery.Provision {
		return &config.RequestError{
			Err:    errors.New("updater.mode=provision: the configuration of this initramfs does not allow it"),
			Advice: "set recovery.provision = true in the configuration that the initramfs is built with",
		}
	}
	d.Work.Begin("provisioning", 0)
	return d.Line(ctx, plan)
}

// Status implements initramfs.Device.
func (d *Device) Status(ctx context.Context) (initramfs.Status, error) {
	s, err := device.ReadStatus(ctx, d.Config, "")
	if err != nil {
		return initramfs.Status{}, err
	}
	st := initramfs.Status{Bootable: s.Primary != ""}
	for _, slot := range s.Slots {
		words := fmt.Sprintf("slot %-8s  %-6s  %s", slot.Name, slot.State, slot.Version)
		if slot.Primary {
			words += "  boots next"
		}
		st.Slots = append(st.Slots, words)
	}
	return st, d.ShowStatus(s)
}

// Slots implements initramfs.Device.
func (d *Device) Slots() []string { return d.Config.SlotNames() }

// open opens the device for a change of its boot state.
func (d *Device) open() (*device.Device, error) {
	return device.Open(d.Config, device.Options{Purpose: device.Change})
}

// intact checks that a slot holds what was signed for it.
func (d *Device) intact(ctx context.Context, dev *device.Device, slot string) error {
	trust, err := dev.Trust(nil)
	if err != nil {
		return err
	}
	dev.Progress = new(update.Progress)
	defer d.watch(dev.Progress)()
	return dev.Intact(ctx, slot, trust.Policy)
}

// BootOnce implements initramfs.Device. A slot whose tries are spent may be tried once more; one that was marked bad may hold half of an
// image, and becomes bootable only when it is intact.
func (d *Device) BootOnce(ctx context.Context, slot string) error {
	dev, err := d.open()
	if err != nil {
		return err
	}
	defer dev.Close()
	st, err := dev.BootState(ctx)
	if err != nil {
		return err
	}
	activate := dev.SwitchTo
	for _, s := range st.Slots {
		if s.Name != slot || s.Bootable || s.Priority > 0 {
			continue
		}
		if err := d.intact(ctx, dev, slot); err != nil {
			err = fmt.Errorf("it is marked bad and not known to be complete, so install an update: %w", err)
			return &update.BootError{Slot: slot, Doing: "booting it once", Err: err}
		}
		activate = dev.ActivateIntact
	}
	if err := activate(ctx, slot, 1); err != nil {
		return err
	}
	d.Say("slot %s boots next, with 1 try", slot)
	return nil
}

// Reactivate implements initramfs.Device: every slot that still holds exactly what was signed for it becomes bootable again, the best one
// first. It does nothing while the boot loader has a slot to boot.
func (d *Device) Reactivate(ctx context.Context) (slot string, err error) {
	dev, err := d.open()
	if err != nil {
		return "", err
	}
	defer dev.Close()
	st, err := dev.BootState(ctx)
	if err != nil || st.Next != "" {
		return "", err
	}
	var errs []error
	for _, name := range dev.BestLast() {
		if err := d.intact(ctx, dev, name); err != nil {
			errs = append(errs, fmt.Errorf("slot %s: %w", name, err))
			continue
		}
		if err := dev.ActivateIntact(ctx, name, dev.Tries()); err != nil {
			return slot, errors.Join(append(errs, err)...)
		}
		d.Say("slot %s holds what was signed for it and boots next", name)
		slot = name
	}
	return slot, errors.Join(errs...)
}
