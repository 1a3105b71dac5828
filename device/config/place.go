package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Beside is the suffix of the fixed name under which a file role is written until it was read back.
const Beside = ".new"

// Place is a file that is a role of a slot: a path in the file system of a partition, mounted or not, or below a mount point.
type Place struct {
	FS   string // PARTLABEL=..., PARTUUID=..., /dev/... or a mount point
	Path string // from the root of the file system, without a leading slash
}

// String is the place as a configuration names it.
func (p Place) String() string { return p.FS + ":/" + p.Path }

// Mounted reports whether FS is a mount point.
func (p Place) Mounted() bool { return filepath.IsAbs(p.FS) && !strings.HasPrefix(p.FS, "/dev/") }

// segment matches the names that a path may consist of. They mean one file on every file system: no "..", no short name of FAT, nothing that
// FAT drops or folds except the case of ASCII.
var segment = regexp.MustCompile(`^[A-Za-z0-9_+-](?:[A-Za-z0-9._+-]{0,98}[A-Za-z0-9_+-])?$`)

// parsePlace reads FS:/PATH, in which {slot} is the name of the slot.
func parsePlace(spec, slot string) (p Place, err error) {
	fs, path, ok := strings.Cut(strings.ReplaceAll(spec, "{slot}", slot), ":/")
	p = Place{fs, path}
	if !ok || !filepath.IsAbs(fs) && !strings.Contains(fs, "=") {
		return p, fmt.Errorf("%q names no file; expected PARTLABEL=NAME:/PATH, PARTUUID=UUID:/PATH or /MOUNT/POINT:/PATH", spec)
	}
	for name := range strings.SplitSeq(path, "/") {
		if !segment.MatchString(name) {
			return p, fmt.Errorf("%q: %q in the path; expected letters, digits and . _ + - with none of these dots at an end", spec, name)
		}
	}
	if strings.HasSuffix(strings.ToLower(path), Beside) {
		return p, fmt.Errorf("%q ends in %s, the name of an unfinished file", spec, Beside)
	}
	return p, nil
}

// checkFiles checks the file roles of a slot. owner has the slot of every place and partition that was seen.
func (c *Config) checkFiles(s Slot, owner map[string]string) error {
	for role, spec := range s.Files {
		p, err := parsePlace(spec, s.Name)
		if err != nil {
			return fmt.Errorf("slot %s: files.%s: %w", s.Name, role, err)
		}
		if c.State.Device == "" {
			return fmt.Errorf("slot %s: role %s is a file, which needs a state store; set state", s.Name, role)
		}
		if s.Partitions[role] != "" {
			return fmt.Errorf("slot %s: role %s is a partition and a file", s.Name, role)
		}
		if other, taken := owner[p.FS]; taken {
			return fmt.Errorf("slot %s: %s of role %s lies in a partition of slot %s, which is written as a whole", s.Name, p, role, other)
		}
		key := p.FS + ":/" + strings.ToLower(p.Path)
		if other, taken := owner[key]; taken {
			return fmt.Errorf("slot %s: file %s of role %s belongs to slot %s too (letter case does not count)", s.Name, p, role, other)
		}
		owner[key] = s.Name
	}
	return nil
}

// FileRole is the file that is configured for a role of a slot; false if the role is a partition or unknown.
func (c *Config) FileRole(slot, role string) (Place, bool) {
	for _, s := range c.Slot {
		if spec, ok := s.Files[role]; ok && s.Name == slot {
			p, err := parsePlace(spec, slot)
			return p, err == nil
		}
	}
	return Place{}, false
}
