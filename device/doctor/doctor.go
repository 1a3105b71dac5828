// Package doctor looks at everything that an install needs and changes nothing: the configuration, the keys and the clock, the disk and the
// slots, the medium and the kernel, the state store, and the boot loader's state. Each check adds its findings; one that cannot go on
// reports why, and the others go on without it.
package doctor

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strings"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/efi"
	"updater/device"
	"updater/device/config"
)

// Finding is one thing that a person should know, and the check that found it.
type Finding struct {
	Check string `json:"check"` // config | keys | clock | disk | slots | medium | kernel | state | boot
	boot.Finding
	Err error `json:"-"` // whose text is the evidence; nil where the check itself judged
}

// Machine is the part of the running system that the checks query. Tests plant faults in it that a file cannot have.
type Machine struct {
	Now    func() time.Time
	Medium func(p blockdev.Partition) (blockdev.Facts, blockdev.Features, error)
	EFI    func() error // why the firmware's variables cannot be reached
	Root   string       // of the running system
}

// ThisMachine is the running system.
func ThisMachine() Machine {
	return Machine{
		Now: time.Now,
		Medium: func(p blockdev.Partition) (f blockdev.Facts, has blockdev.Features, err error) {
			d, err := p.Open(blockdev.ReadOnly)
			if err != nil {
				return f, has, err
			}
			defer d.Close()
			return d.Facts(), d.Features(), nil
		},
		EFI:  func() error { _, err := efi.OpenFirmware(efi.Global); return err },
		Root: "/",
	}
}

type doctor struct {
	Machine
	config *config.Config
	booted string
	check  string // that runs
	found  []Finding
}

// Examine makes all checks. booted is as in device.Options. The findings are sorted from the least severe, since a person reads the last line
// first.
func Examine(ctx context.Context, c *config.Config, booted string, m Machine) []Finding {
	d := &doctor{Machine: m, config: c, booted: booted}
	for _, c := range []struct {
		name string
		run  func(ctx context.Context)
	}{
		{"config", d.checkConfig}, {"keys", d.checkKeys}, {"clock", d.checkClock}, {"disk", d.checkDisk},
		{"kernel", d.checkFirmware}, {"state", d.checkState}, {"boot", d.checkBoot},
	} {
		d.check = c.name
		c.run(ctx)
	}
	rank := func(f Finding) int {
		return slices.Index([]boot.Severity{boot.Info, boot.Warning, boot.Failure}, f.Severity)
	}
	sort.SliceStable(d.found, func(i, j int) bool { return rank(d.found[i]) < rank(d.found[j]) })
	return d.found
}

// add adds findings, each only once: two checks may meet the same fault.
func (d *doctor) add(findings ...boot.Finding) {
	for _, f := range findings {
		d.note(Finding{Check: d.check, Finding: f})
	}
}

func (d *doctor) note(f Finding) {
	if !slices.ContainsFunc(d.found, func(o Finding) bool { return o.Evidence == f.Evidence }) {
		d.found = append(d.found, f)
	}
}

func (d *doctor) warn(remedy, format string, a ...any) { d.add(boot.Warn(remedy, format, a...)) }

func (d *doctor) failure(remedy, format string, a ...any) { d.add(boot.Fail(remedy, format, a...)) }

// fail makes a failure of an error. The remedy is the hint of the error; for a boot state that is damaged it is --repair.
func (d *doctor) fail(err error) {
	f := Finding{Check: d.check, Finding: boot.Finding{Severity: boot.Failure, Evidence: strings.TrimSpace(err.Error())}, Err: err}
	if d.check == "boot" && errors.Is(err, boot.ErrState) {
		f.Remedy = boot.RemedyRepair
	}
	d.note(f)
}

// open opens the device for reading.
func (d *doctor) open() (*device.Device, error) {
	return device.Open(d.config, device.Options{Booted: d.booted})
}
