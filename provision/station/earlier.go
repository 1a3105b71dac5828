package station

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"updater/device/config"
	"updater/provision/line"
	"updater/provision/plan"
	"updater/provision/target"
	"updater/state"
	"updater/update"
)

// accepts checks one document of the plan by the conditions of a device, with the function that an install uses.
type accepts func(c update.Conditions) error

// Earlier implements line.Host. The configurations that locate the slots and the state store of a device are those of this program and of the
// plan.
func (h host) Earlier(m target.Medium, old []plan.Placed, floor int64) (line.Earlier, error) {
	s, was := h.s, line.Earlier{}
	for _, c := range []*config.Config{s.config, s.device} {
		if c == nil {
			continue
		}
		found, err := earlier(c, m, old)
		if err != nil {
			return was, err
		}
		was.Device, floor = was.Device || found.Device, max(floor, found.Floor)
	}
	was.Floor = max(floor, s.known.Floor)
	return was, s.admits(was.Floor)
}

// admits refuses documents below a floor, and a plan that would lose the floor.
func (s *Station) admits(floor int64) error {
	if index := s.plan.RollbackIndex; index != nil && *index < floor {
		return fmt.Errorf("the plan: %w", &update.RollbackError{Index: *index, Floor: floor})
	}
	c := s.conditions()
	c.Floor = floor
	for _, accept := range s.accepts {
		if err := accept(c); err != nil {
			return err
		}
	}
	if floor > 0 && (s.device == nil || !strings.Contains(s.device.State.Device, "=")) {
		return &update.IncompatibleError{Reason: fmt.Sprintf(
			"the device has the floor %d, which only a state store on a labelled partition keeps; the plan's config has none", floor)}
	}
	return nil
}

// earlier looks for the slots and the state store of a device on a disk.
func earlier(c *config.Config, m target.Medium, old []plan.Placed) (was line.Earlier, err error) {
	for _, slot := range c.Slot {
		has := len(slot.Partitions) > 0
		for _, spec := range slot.Partitions {
			_, found := partition(old, spec)
			has = has && found
		}
		was.Device = was.Device || has
	}
	if !was.Device {
		return was, nil
	}
	area, ok := stateArea(c.State, m, old)
	if !ok {
		was.Floor = c.Release.RollbackIndex
		return was, nil
	}
	store, err := state.Open(area, state.State{Floor: c.Release.RollbackIndex})
	if err != nil {
		return was, fmt.Errorf("reading the floor of the device: %w", err)
	}
	if store.New() {
		return line.Earlier{}, nil // the slots of a run that was cut off
	}
	was.Floor = store.State().Floor
	return was, nil
}

// partition finds a partition that a configuration names. A node counts by the number at its end.
func partition(old []plan.Placed, spec string) (plan.Placed, bool) {
	kind, name, labelled := strings.Cut(spec, "=")
	number := 0
	if !labelled {
		digits := spec[len(strings.TrimRight(spec, "0123456789")):]
		number, _ = strconv.Atoi(digits)
	}
	i := slices.IndexFunc(old, func(p plan.Placed) bool {
		switch {
		case !labelled:
			return strings.HasPrefix(spec, "/dev/") && number > 0 && p.Number == number
		case kind == "PARTUUID":
			return strings.EqualFold(p.GUID, name)
		}
		return kind == "PARTLABEL" && p.Name == name
	})
	if i < 0 {
		return plan.Placed{}, false
	}
	return old[i], true
}

// stateArea is the place of the state store on a disk; false if the configuration names none on a partition.
func stateArea(spec config.State, m target.Medium, old []plan.Placed) (state.Area, bool) {
	p, found := partition(old, spec.Device)
	if !found {
		return nil, false
	}
	a := area{Medium: m, off: p.Offset, size: p.Length}
	if spec.Size > 0 {
		off := spec.Offset
		if off < 0 {
			off += p.Length
		}
		if off < 0 || off > p.Length-spec.Size {
			return nil, false
		}
		a.off, a.size = a.off+off, spec.Size
	}
	return a, true
}

// area is a part of a medium, for reading.
type area struct {
	target.Medium
	off, size int64
}

func (a area) String() string { return "the state store" }
func (a area) Size() int64    { return a.size }
func (a area) ReadBackAt(p []byte, off int64) (int, error) {
	if off < 0 || off > a.size-int64(len(p)) {
		return 0, fmt.Errorf("reading %d bytes at %d, outside of the area of %d", len(p), off, a.size)
	}
	return a.Medium.ReadBackAt(p, a.off+off)
}
func (area) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
