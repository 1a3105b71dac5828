package station

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/target"
	"updater/release"
	"updater/update"
)

const (
	lockPatience   = 2 * time.Second  // udev holds the lock while it probes
	rereadPatience = 10 * time.Second // udev probes every new partition
)

// host implements line.Host.
type host struct{ s *Station }

// disk is a target that is open exclusively and locked, so that udev and other updaters stay away.
type disk struct {
	*blockdev.Device
	w    *blockdev.Writer
	lock io.Closer
}

func (d *disk) Writer() medium.Writer { return d.w }

func (d *disk) FitTable(sector int, grow bool) (bool, error) {
	fit, err := blockdev.FitGPT(d.Device, blockdev.GPTOptions{SectorSize: int64(sector), GrowLast: grow})
	return fit.Found, err
}

func (d *disk) Close() error { return errors.Join(d.Device.Close(), d.lock.Close()) }

// Open implements line.Host.
func (host) Open(_ context.Context, t *target.Disk) (medium.Device, error) {
	now, err := target.Host{}.ByPath(t.Path)
	if err != nil {
		return nil, err
	}
	was, _ := t.Key(t.Bus)
	key, _ := now.Key(now.Bus)
	if key != was || now.Bus != t.Bus {
		return nil, fmt.Errorf("%s: disk changed since selection (was %s, now %s)", t.Path, was, key)
	}
	lock, err := blockdev.LockDisk(t.Path, lockPatience)
	if err != nil {
		return nil, err
	}
	dev, err := blockdev.OpenPath(t.Path, 0, 0, blockdev.Exclusive)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// The paced engine has no buffers of its own, which would count once for each target.
	w, err := dev.NewWriter(blockdev.WriterOptions{Engine: blockdev.Paced})
	if err != nil {
		return nil, errors.Join(err, dev.Close(), lock.Close())
	}
	return &disk{dev, w, lock}, nil
}

// Boot implements line.Host.
func (h host) Boot(ctx context.Context, t *target.Disk, parts []plan.Placed, floor int64) error {
	hasNodes, err := blockdev.RereadTable(t.Path, rereadPatience)
	if err != nil {
		return err
	}
	if hasNodes && len(parts) > 0 {
		if err := checkKernel(t, parts); err != nil {
			return err
		}
	}
	if h.s.device == nil {
		return nil
	}
	return h.s.setBoot(ctx, t.Path, floor)
}

// checkKernel compares the partitions of the kernel with the table, after it added those that a kernel without a parser for GPT lacks.
func checkKernel(t *target.Disk, parts []plan.Placed) error {
	if !(target.Host{}).KnowsPartitions(t) {
		for _, p := range parts {
			if err := blockdev.AddPartition(t.Path, p.Number, p.Offset, p.Length); err != nil {
				return err
			}
		}
	}
	return target.Host{}.CheckKernel(t, parts)
}

// setBoot makes the plan's slot the first choice of the boot loader, the other slots that the plan writes the next ones, and marks
// those without an image bad. A whole-disk image keeps its own state for the others.
func (s *Station) setBoot(ctx context.Context, path string, floor int64) error {
	c, err := s.loadDevice() // OpenTarget changes it
	if err != nil {
		return err
	}
	first, others := "", []string{}
	for _, slot := range c.Slot {
		switch {
		case !s.writes(slot):
		case s.plan.Slot == "" && first == "" || slot.Name == s.plan.Slot:
			first = slot.Name
		case s.plan.Image == nil:
			others = append(others, slot.Name)
		}
	}
	if first == "" {
		return config.Requestf("plan %s: the plan writes no slot of the configuration completely", s.o.Plan)
	}
	dev, err := device.OpenTarget(c, path, s.o.Inside)
	if err != nil {
		return fmt.Errorf("the plan's configuration %s: %w", s.plan.Config, err)
	}
	defer dev.Close()
	if s.plan.Environment != "" {
		text, err := install.ReadFile(s.plan.Environment, device.MaxEnvironment)
		if err != nil {
			return fmt.Errorf("reading the initial environment: %w", err)
		}
		if err := dev.CreateEnvironment(string(text)); err != nil {
			return fmt.Errorf("plan %s: %w", s.o.Plan, err)
		}
	}
	if err := dev.SetChoice(ctx, first, others, slices.DeleteFunc(slices.Clone(c.Slot), s.writes)); err != nil {
		return err
	}
	if floor > 0 { // before anything else, since it held before
		if err := dev.RaiseFloor(floor); err != nil {
			return err
		}
	}
	return s.remember(dev)
}

// loadDevice reads the configuration of the plan's devices.
func (s *Station) loadDevice() (*config.Config, error) {
	c, err := config.LoadOther(s.plan.Config, device.Backends())
	if err != nil {
		return nil, fmt.Errorf("the plan: %w", err)
	}
	c.Build = s.o.Build
	return c, device.CheckSlots(c)
}

// writes reports whether the plan writes every partition of a slot, and those of its files; a whole-disk image contains all.
func (s *Station) writes(slot config.Slot) bool {
	if s.plan.Image != nil {
		return true
	}
	specs := slices.Collect(maps.Values(slot.Partitions))
	for _, file := range slot.Files {
		partition, _, _ := strings.Cut(file, ":/")
		specs = append(specs, partition)
	}
	for _, spec := range specs {
		if s.payloadOf(spec) == nil {
			return false
		}
	}
	return true
}

// payloadOf is the image that the plan writes to a partition of the configuration; nil if there is none.
func (s *Station) payloadOf(spec string) *medium.Payload {
	i := slices.IndexFunc(s.payloads, func(p *medium.Payload) bool { return p.Partition != "" && spec == "PARTLABEL="+p.Partition })
	if i < 0 {
		return nil
	}
	return s.payloads[i]
}

// remember records the content of a layout's slots in the device's state store, if the store is on the target.
func (s *Station) remember(dev *device.Device) error {
	if s.plan.Image != nil || !dev.HasStore() {
		return nil
	}
	for _, slot := range dev.Config.Slot {
		if len(slot.Files) > 0 { // the plan has no document of a file: the slot counts as filled by other means
			continue
		}
		if !s.writes(slot) {
			continue
		}
		var records []update.Record
		for _, role := range slot.Roles() {
			r, err := s.record(slot, role, dev.Now())
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		if err := dev.Record(records...); err != nil { // all roles in one change
			return err
		}
		if err := s.keep(dev, slot); err != nil {
			s.o.Inputs.Warn("keeping the bmap of slot %s: %v; a recovery of this device cannot check the slot", slot.Name, err)
		}
	}
	return nil
}

// record is the state store's record of a role of a slot.
func (s *Station) record(slot config.Slot, role string, at time.Time) (update.Record, error) {
	doc := s.payloadOf(slot.Partitions[role]).Doc
	r := doc.Record(slot.Name, role, update.OutcomeInstalled, at)
	rel := s.set.release()
	if rel == nil {
		var err error
		if rel, err = release.Bare(doc.Map, doc.Checksum, role); err != nil {
			return r, err
		}
	}
	r.Version, r.RollbackIndex, r.Release = rel.Version(), rel.Order().RollbackIndex, rel.Identity()
	return r, nil
}

// keep keeps the signed documents of a slot for the recovery.
func (s *Station) keep(dev *device.Device, slot config.Slot) error {
	if s.set != nil {
		return dev.KeepRelease(slot.Name, s.set.files.UnverifiedDocument, s.set.files.UnverifiedSig, s.set.maps[slot.Name])
	}
	role := slot.Roles()[0]
	files := s.signed[s.payloadOf(slot.Partitions[role]).Partition]
	return dev.KeepDocument(slot.Name, role, files.UnverifiedBmap, files.UnverifiedSig)
}
