package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"updater/provision/plan"
	"updater/provision/record"
)

// Target is a disk that the operator named.
type Target struct {
	Name    string // of the port, or the path
	Disk    *Disk
	Refused error // why it must not be written; nil if it may
	Absent  bool  // it is refused because there is no such disk
}

// Select finds the targets that are named by path or by "PORT=NAME"; without any it takes those of the plan. It refuses the system
// disk, a disk that is mounted, held, swapped on or read-only or that the plan does not list, a partition, and a disk that is named
// twice. It opens nothing.
func Select(h Host, p *plan.Plan, paths, ports []string) []Target {
	s := selection{h: h, plan: p, seen: map[string]string{}}
	if len(paths)+len(ports) == 0 {
		paths = p.Targets
		for _, name := range slices.Sorted(maps.Keys(p.Ports)) {
			ports = append(ports, p.Ports[name]+"="+name)
		}
	}
	for _, path := range paths {
		d, err := h.ByPath(path)
		s.add(path, d, err)
	}
	for _, spec := range ports {
		port, name, named := strings.Cut(spec, "=")
		if !named || name == "" {
			name = port
		}
		d, err := h.byPort(port)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		s.add(name, d, err)
	}
	return s.targets
}

// selection is a Select under way.
type selection struct {
	h       Host
	plan    *plan.Plan
	seen    map[string]string // device number to name
	targets []Target
}

// add decides about a disk; err is why it was not found.
func (s *selection) add(name string, d *Disk, err error) {
	if err == nil {
		err = s.allows(name, d)
	}
	absent := d == nil
	if absent {
		d = &Disk{Disk: record.Disk{Path: name}}
	}
	if err == nil {
		s.seen[d.devno] = name
	}
	s.targets = append(s.targets, Target{Name: name, Disk: d, Refused: err, Absent: absent})
}

// allows returns why a disk must not be written; nil if it may.
func (s *selection) allows(name string, d *Disk) error {
	reason, err := s.reason(d)
	if err == nil && reason != "" {
		err = &plan.RefusedError{Target: name, Reason: reason}
	}
	return err
}

func (s *selection) reason(d *Disk) (string, error) {
	switch {
	case !s.lists(d):
		return fmt.Sprintf("%s (%s) is in neither targets nor ports of the plan", d.Path, d.Bus), nil
	case d.Size == 0:
		return d.Path + " has no medium", nil
	case d.readOnly:
		return d.Path + " is read-only", nil
	}
	use, err := s.h.use(d)
	if err == nil && use == "" && s.seen[d.devno] != "" {
		use = fmt.Sprintf("it is %s, which is named as %s already", d.Path, s.seen[d.devno])
	}
	return use, err
}

// lists reports whether the plan allows a disk as a target. A plan without a list leaves that to the command line.
func (s *selection) lists(d *Disk) bool {
	p := s.plan
	if len(p.Targets)+len(p.Ports) == 0 {
		return true
	}
	for _, path := range p.Targets {
		if listed, err := s.h.ByPath(path); err == nil && listed.devno == d.devno {
			return true
		}
	}
	for _, port := range p.Ports {
		if d.onPort(port) {
			return true
		}
	}
	return false
}
