package device

import (
	"errors"
	"slices"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/state"
)

// bootPatience is how long one change waits for those of other processes, which a slow medium may hold up: a mark-good that gives up
// earlier costs the slot one of its tries. The kernel gives a command of a SCSI disk up after 6 attempts of 30 s (drivers/scsi/sd.h).
const bootPatience = 3 * time.Minute

// session holds the handles open for one read or one change of the boot state and the state store, and no longer, so that other processes
// can open them in turn and every change begins by reading what they left.
type session struct {
	backend  boot.Backend
	store    *state.Store // nil: nothing is remembered
	maps     *state.Documents
	chain    *state.Chain // of keyrings
	warnings []Warning    // of the state store

	areas   []*blockdev.Device
	folders []string // whose file systems hold files that the boot loader reads
	closers []func() error
}

// end closes everything.
func (s *session) end() error {
	var errs []error
	for _, a := range s.areas {
		errs = append(errs, a.Close())
	}
	for _, end := range slices.Backward(s.closers) {
		errs = append(errs, end())
	}
	*s = session{}
	return errors.Join(errs...)
}

// keep remembers an opened area to close it.
func (s *session) keep(a *blockdev.Device, err error) (*blockdev.Device, error) {
	if err != nil {
		return nil, err
	}
	s.areas = append(s.areas, a)
	return a, nil
}

// reading opens the boot state and the state store for reading.
func (d *Device) reading(read func() error) (err error) {
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.open(blockdev.ReadOnly); err != nil {
		return err
	}
	return read()
}

// locked opens the boot state and the state store for one change, under the boot lock, which orders it with those of other processes.
func (d *Device) locked(change func() error) error {
	return d.underLock(func() error {
		if err := d.open(blockdev.Exclusive); err != nil {
			return err
		}
		return change()
	})
}

// underLock runs a change that opens what it needs.
func (d *Device) underLock(change func() error) (err error) {
	unlock, err := d.disk.LockBoot(bootPatience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(), unlock()) }()
	return change()
}

func (d *Device) open(mode blockdev.Mode) (err error) {
	if d.backend, err = d.openBackend(d.booted, mode); err != nil {
		return err
	}
	d.caps = d.backend.Caps()
	return d.openStore(mode)
}
