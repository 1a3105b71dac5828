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

// modules adds the wanted modules, their dependencies and firmware, and indexes of them. It reads dependencies from .modinfo, so
// that an unpacked kernel package works without depmod.
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

// firmware adds the firmware files of a module, decompressed, searching the directories of the kernel
// (drivers/base/firmware_loader). Missing files are only reported: many modules list firmware for a decade of hardware.
func (p *packing) firmware(root, release, name string, files []string) error {
	base := filepath.Join(root, "lib/firmware")
	for _, f := range files {
		if !filepath.IsLocal(f) {
			return fmt.Errorf("module %s: firmware %q is outside lib/firmware", name, f)
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
					continue // added for another module
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

// catalogue is a directory of modules.
type catalogue struct {
	release  string
	machine  elf.Machine
	files    map[string]string // by normalized name
	builtin  map[string]bool
	packed   map[string]*module
	byAlias  map[string]string // exact aliases of all modules; filled on first use
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

// normal returns the kernel's name of a module: without directory and extensions, with underscores.
func normal(name string) string {
	name, _, _ = strings.Cut(path.Base(name), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// choose packs modules and sets by name. A named module has to exist; the existing members of a set are packed.
func (c *catalogue) choose(wanted []string) error {
	for _, name := range wanted {
		name = strings.TrimSpace(name)
		members, isSet := Sets[name]
		switch {
		case name == "":
		case !isSet:
			if err := c.want(normal(name), "requested"); err != nil {
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
		return fmt.Errorf("set %s: no member found: %s", set, strings.Join(members, " "))
	}
	return nil
}

// want packs a module and its dependencies. why goes into the report.
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
		return fmt.Errorf("module %s (%s): not found and not built in", name, why)
	}
	m, err := readModule(file)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	if m.vermagic != "" && m.vermagic != c.release {
		return fmt.Errorf("module %s is for kernel %s, expected %s", name, m.vermagic, c.release)
	}
	if m.machine != c.machine {
		return fmt.Errorf("module %s is for %s, expected %s as the programs", name, m.machine, c.machine)
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

// wantSoft packs a soft dependency if it exists. It may be an alias: ext4 has a soft dependency on "crypto-crc32c".
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

// aliased returns the module with exactly this alias, preferring generic implementations; "" if there is none.
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

// closure lists the modules to load before a module, nearest first, as in modules.dep.
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
