package provision

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// RefusedError says why a target is not written.
type RefusedError struct {
	Target, Reason string
	Err            error // what the reason is about; may be nil
}

func (e *RefusedError) Error() string { return e.Target + " is refused: " + e.Reason }
func (e *RefusedError) Unwrap() error { return e.Err }

// Target is a disk that the operator named.
type Target struct {
	Name    string // of the port, or the path
	Disk    *Disk
	Refused error // why it may not be written; nil when it may
	Absent  bool  // it is refused because no such disk is there
}

// Select finds the targets that are named by path or by "PORT=NAME", and refuses what may not be written: the system
// disk, what is mounted, held, swapped on or read-only, what the plan does not list, a partition, and one disk
// named twice. Nothing is opened.
func (p *Plan) Select(h Host, paths, ports []string) []Target {
	var targets []Target
	seen := map[string]string{}
	add := func(name string, d *Disk, err error) {
		if err == nil {
			err = p.allows(h, name, d)
		}
		if err == nil && seen[d.devno] != "" {
			err = &RefusedError{Target: name, Reason: fmt.Sprintf("it is %s, which is named as %s already", d.Path, seen[d.devno])}
		}
		absent := d == nil
		if absent {
			d = &Disk{Path: name}
		}
		if err == nil {
			seen[d.devno] = name
		}
		targets = append(targets, Target{Name: name, Disk: d, Refused: err, Absent: absent})
	}
	if len(paths)+len(ports) == 0 {
		paths = p.Targets
		for _, name := range slices.Sorted(maps.Keys(p.Ports)) {
			ports = append(ports, p.Ports[name]+"="+name)
		}
	}
	for _, path := range paths {
		d, err := h.ByPath(path)
		add(path, d, err)
	}
	for _, spec := range ports {
		port, name, named := strings.Cut(spec, "=")
		if !named || name == "" {
			name = port
		}
		d, err := h.ByPort(port)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		add(name, d, err)
	}
	return targets
}

// allows is every reason against a disk.
func (p *Plan) allows(h Host, name string, d *Disk) error {
	refuse := func(format string, a ...any) error {
		return &RefusedError{Target: name, Reason: fmt.Sprintf(format, a...)}
	}
	if !p.lists(h, d) {
		return refuse("%s (%s) is in neither targets nor ports of the plan", d.Path, d.Bus)
	}
	if d.Size == 0 {
		return refuse("%s has no medium", d.Path)
	}
	if d.readOnly {
		return refuse("%s is read-only", d.Path)
	}
	use, err := h.use(d)
	if err != nil {
		return err
	}
	if use != "" {
		return refuse("%s", use)
	}
	return nil
}

// lists tells whether the plan lets a disk be a target. A plan without a list leaves that to the command line.
func (p *Plan) lists(h Host, d *Disk) bool {
	if len(p.Targets)+len(p.Ports) == 0 {
		return true
	}
	for _, path := range p.Targets {
		if listed, err := h.ByPath(path); err == nil && listed.devno == d.devno {
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

// use says what a disk or one of its partitions is used for; "" is nothing. Devices on top of it, such as a volume or
// an array, are followed to what they are used for.
func (h Host) use(d *Disk) (string, error) {
	mounts, err := h.mounts()
	if err != nil {
		return "", err
	}
	swaps, err := h.swaps()
	if err != nil {
		return "", err
	}
	names := append([]string{d.name}, slices.Sorted(maps.Keys(d.parts))...)
	for _, name := range names {
		for _, on := range h.stack(name, nil) {
			devno := attribute(h.sys("class", "block", on, "dev"))
			if dirs := mounts[devno]; len(dirs) > 0 {
				if slices.ContainsFunc(dirs, func(dir string) bool { return slices.Contains([]string{"/", "/usr", "/boot", "/boot/efi"}, dir) }) {
					return fmt.Sprintf("it is the system disk: %s is mounted on %s", h.node(on), dirs[0]), nil
				}
				return fmt.Sprintf("%s is mounted on %s", h.node(on), dirs[0]), nil
			}
			if swaps[h.node(on)] {
				return fmt.Sprintf("%s is swapped on", h.node(on)), nil
			}
			if on != name {
				return fmt.Sprintf("%s is held by %s", h.node(name), on), nil
			}
		}
	}
	return "", nil
}

// stack lists a block device and everything that sits on it, the top first.
func (h Host) stack(name string, seen []string) []string {
	if slices.Contains(seen, name) {
		return nil
	}
	seen = append(seen, name)
	var list []string
	holders, _ := os.ReadDir(h.sys("class", "block", name, "holders"))
	for _, holder := range holders {
		list = append(list, h.stack(holder.Name(), seen)...)
	}
	return append(list, name)
}

// mounts maps major:minor to where it is mounted. A file system with a device number of its own (btrfs, overlay) is
// found by the source of its mount.
func (h Host) mounts() (map[string][]string, error) {
	data, err := os.ReadFile(h.proc("self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	mounts := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		// "36 35 98:0 /root /mountpoint options... - type source ..." (proc_pid_mountinfo(5))
		w := strings.Fields(line)
		dash := slices.Index(w, "-")
		if len(w) < 5 || dash < 0 || dash+2 >= len(w) {
			continue
		}
		dir := octal.Replace(w[4])
		mounts[w[2]] = append(mounts[w[2]], dir)
		if real, err := filepath.EvalSymlinks(octal.Replace(w[dash+2])); err == nil {
			if devno := attribute(h.sys("class", "block", filepath.Base(real), "dev")); devno != "" && devno != w[2] {
				mounts[devno] = append(mounts[devno], dir)
			}
		}
	}
	return mounts, nil
}

// octal undoes the escapes of the mount table.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// swaps lists the device nodes that are swapped on.
func (h Host) swaps() (map[string]bool, error) {
	data, err := os.ReadFile(h.proc("swaps"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, fmt.Errorf("reading the swap table: %w", err)
	}
	swaps := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); len(w) > 0 {
			swaps[octal.Replace(w[0])] = true
		}
	}
	return swaps, nil
}
