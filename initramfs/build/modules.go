package build

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// modules adds the wanted modules with all that they depend on, the firmware that they name, and indexes cut
// down to them. Dependencies come from the modules themselves (their .modinfo section), so that a kernel
// package that was only unpacked, without depmod, is good enough.
func (p *packing) modules(root, release string, wanted []string) error {
	c, err := openCatalogue(filepath.Join(root, "lib/modules", release), release, p.machine)
	if err == nil {
		err = c.choose(wanted)
	}
	if err != nil {
		return fmt.Errorf("modules of kernel %s: %w", release, err)
	}
	base := path.Join("lib/modules", release)
	var dep, alias, soft strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.packed)) {
		m := c.packed[name]
		file := "kernel/" + name + ".ko"
		if err := p.file(partModules, path.Join(base, file), m.data, 0o644); err != nil {
			return err
		}
		p.report.Modules = append(p.report.Modules, Module{Name: name, Bytes: int64(len(m.data)), Why: m.why})
		fmt.Fprintf(&dep, "%s:", file)
		for _, d := range c.closure(name) {
			fmt.Fprintf(&dep, " kernel/%s.ko", d)
		}
		fmt.Fprintln(&dep)
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, name)
		}
		soft.WriteString(m.softdep(name))
		if err := p.firmware(root, release, name, m.firmware); err != nil {
			return err
		}
	}
	p.report.Release, p.report.BuiltIn, p.report.LeftOut = release, c.inKernel, c.leftOut
	return errors.Join(
		p.file(partModules, path.Join(base, "modules.dep"), []byte(dep.String()), 0o644),
		p.file(partModules, path.Join(base, "modules.alias"), []byte(alias.String()), 0o644),
		p.file(partModules, path.Join(base, "modules.softdep"), []byte(soft.String()), 0o644),
	)
}

// firmware adds what a module names, from where the kernel would look for it (drivers/base/firmware_loader),
// unpacked. What the host does not have is in the report: many modules name files for hardware of ten years.
func (p *packing) firmware(root, release, name string, files []string) error {
	base := filepath.Join(root, "lib/firmware")
	for _, f := range files {
		if !filepath.IsLocal(f) {
			return fmt.Errorf("module %s names the firmware %q, which is not below lib/firmware", name, f)
		}
		entry := Firmware{Name: f, Module: name}
		for _, dir := range []string{"updates/" + release, "updates", release, ""} {
			for _, ext := range []string{"", ".xz", ".zst"} {
				data, err := readUnpacked(filepath.Join(base, dir, f+ext))
				if errors.Is(err, fs.ErrNotExist) || entry.Found {
					continue
				}
				if err != nil {
					return fmt.Errorf("firmware %s: %w", f, err)
				}
				entry.Found, entry.Bytes = true, int64(len(data))
				target := path.Join("lib/firmware", f)
				if _, twice := p.tree[target]; twice {
					continue // another module names it too
				}
				if err := p.file(partFirmware, target, data, 0o644); err != nil {
					return err
				}
			}
		}
		p.report.Firmware = append(p.report.Firmware, entry)
	}
	return nil
}

// catalogue is a folder of modules.
type catalogue struct {
	release  string
	machine  elf.Machine
	files    map[string]string // by normal name
	builtin  map[string]bool
	packed   map[string]*module
	byAlias  map[string]string // exact aliases of all modules; made when a soft dependency first needs it
	inKernel []string
	leftOut  []string
}

func openCatalogue(dir, release string, machine elf.Machine) (*catalogue, error) {
	c := &catalogue{release: release, machine: machine, files: map[string]string{}, builtin: map[string]bool{}, packed: map[string]*module{}}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(d.Name(), ".ko") {
			c.files[normal(d.Name())] = name
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.FieldsSeq(string(list)) {
		c.builtin[normal(line)] = true
	}
	return c, nil
}

// normal is the kernel's name of a module: no folder, no endings, underscores.
func normal(name string) string {
	name, _, _ = strings.Cut(path.Base(name), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// choose packs what was asked for: modules by name, which have to be there, and sets, of which is taken what
// the kernel has.
func (c *catalogue) choose(wanted []string) error {
	for _, name := range wanted {
		name = strings.TrimSpace(name)
		members, isSet := Sets[name]
		switch {
		case name == "":
		case !isSet:
			if err := c.want(normal(name), "asked for"); err != nil {
				return err
			}
		default:
			if err := c.chooseSet(name, members); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *catalogue) chooseSet(set string, members []string) error {
	found := false
	for _, m := range members {
		m = normal(m)
		if !c.builtin[m] && c.files[m] == "" {
			c.leftOut = append(c.leftOut, m)
			continue
		}
		found = true
		if err := c.want(m, "set "+set); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("of the set %s none is there: %s", set, strings.Join(members, " "))
	}
	return nil
}

// want packs a module with what it depends on. why is for the report.
func (c *catalogue) want(name, why string) error {
	if c.packed[name] != nil {
		return nil
	}
	if c.builtin[name] {
		c.inKernel = append(c.inKernel, name)
		return nil
	}
	file, ok := c.files[name]
	if !ok {
		return fmt.Errorf("module %s (%s) is neither there nor built in", name, why)
	}
	m, err := readModule(file)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	if m.vermagic != "" && m.vermagic != c.release {
		return fmt.Errorf("module %s is for kernel %s", name, m.vermagic)
	}
	if m.machine != c.machine {
		return fmt.Errorf("module %s is for %s, the programs are for %s", name, m.machine, c.machine)
	}
	m.why = why
	c.packed[name] = m
	for _, d := range m.depends {
		if err := c.want(d, "needed by "+name); err != nil {
			return err
		}
	}
	for _, s := range slices.Concat(m.pre, m.post) {
		if err := c.wantSoft(s, name); err != nil {
			return err
		}
	}
	return nil
}

// wantSoft packs a soft dependency, which is optional: ext4 asks for "crypto-crc32c", an alias.
func (c *catalogue) wantSoft(s, name string) error {
	target := normal(s)
	if c.files[target] == "" {
		var err error
		if target, err = c.aliased(s); err != nil {
			return err
		}
	}
	if target == "" || c.files[target] == "" {
		return nil
	}
	return c.want(target, fmt.Sprintf("soft dependency of %s (%s)", name, s))
}

// aliased finds the generic module behind an exact alias; "" is none.
func (c *catalogue) aliased(alias string) (string, error) {
	if c.byAlias == nil {
		c.byAlias = map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(c.files)) {
			m, err := readModule(c.files[name])
			if err != nil {
				return "", fmt.Errorf("module %s: %w", name, err)
			}
			for _, a := range m.aliases {
				if old, taken := c.byAlias[a]; !taken || strings.HasSuffix(name, "_generic") && !strings.HasSuffix(old, "_generic") {
					c.byAlias[a] = name
				}
			}
		}
	}
	return c.byAlias[alias], nil
}

// closure lists what must be loaded before a module, nearest first, as modules.dep does.
func (c *catalogue) closure(name string) []string {
	var list []string
	var visit func(string)
	visit = func(n string) {
		for _, d := range c.packed[n].depends {
			if c.packed[d] == nil {
				continue // built in
			}
			visit(d)
			if !slices.Contains(list, d) {
				list = append(list, d)
			}
		}
	}
	visit(name)
	slices.Reverse(list)
	return list
}
