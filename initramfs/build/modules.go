package build

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// modules adds the wanted modules with all that they depend on, and indexes cut down to them. Dependencies
// come from the modules themselves (their .modinfo section), so that a kernel package that was only
// unpacked, without depmod, is good enough.
func (t tree) modules(root, release string, wanted []string) error {
	dir := filepath.Join(root, "lib/modules", release)
	c, err := openCatalogue(dir)
	if err != nil {
		return fmt.Errorf("modules of kernel %s: %w", release, err)
	}
	for _, name := range wanted {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if err := c.want(normal(name), nil); err != nil {
			return fmt.Errorf("modules of kernel %s: %w", release, err)
		}
	}
	base := path.Join("lib/modules", release)
	var dep, alias, soft strings.Builder
	for _, name := range slices.Sorted(mapKeys(c.packed)) {
		m := c.packed[name]
		file := "kernel/" + name + ".ko"
		if err := t.file(path.Join(base, file), m.data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&dep, "%s:", file)
		for _, d := range c.closure(name) {
			fmt.Fprintf(&dep, " kernel/%s.ko", d)
		}
		fmt.Fprintln(&dep)
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, name)
		}
		if len(m.soft) > 0 {
			fmt.Fprintf(&soft, "softdep %s pre: %s\n", name, strings.Join(m.soft, " "))
		}
	}
	return errors.Join(
		t.file(path.Join(base, "modules.dep"), []byte(dep.String()), 0o644),
		t.file(path.Join(base, "modules.alias"), []byte(alias.String()), 0o644),
		t.file(path.Join(base, "modules.softdep"), []byte(soft.String()), 0o644),
	)
}

func mapKeys[K comparable, V any](m map[K]V) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// module is what a .ko says of itself.
type module struct {
	data    []byte // uncompressed
	depends []string
	soft    []string
	aliases []string
}

// catalogue is a folder of modules.
type catalogue struct {
	files   map[string]string // by normal name
	builtin map[string]bool
	packed  map[string]*module
	byAlias map[string]string // exact aliases of all modules; made when a soft dependency first needs it
}

func openCatalogue(dir string) (*catalogue, error) {
	c := &catalogue{files: map[string]string{}, builtin: map[string]bool{}, packed: map[string]*module{}}
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

// want packs a module with what it depends on. by is the chain that asked for it.
func (c *catalogue) want(name string, by []string) error {
	if c.builtin[name] || c.packed[name] != nil {
		return nil
	}
	file, ok := c.files[name]
	if !ok {
		if len(by) > 0 {
			return fmt.Errorf("module %s, needed by %s, is neither there nor built in", name, strings.Join(by, " needed by "))
		}
		return fmt.Errorf("module %s is neither there nor built in", name)
	}
	m, err := readModule(file)
	if err != nil {
		return fmt.Errorf("module %s: %w", name, err)
	}
	c.packed[name] = m
	for _, d := range m.depends {
		if err := c.want(d, append([]string{name}, by...)); err != nil {
			return err
		}
	}
	for _, s := range m.soft { // optional: ext4 asks for "crypto-crc32c", which is an alias
		target := normal(s)
		if c.files[target] == "" {
			if target, err = c.aliased(s); err != nil {
				return err
			}
		}
		if target != "" && c.files[target] != "" {
			if err := c.want(target, append([]string{name}, by...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// aliased finds the generic module behind an exact alias; "" is none.
func (c *catalogue) aliased(alias string) (string, error) {
	if c.byAlias == nil {
		c.byAlias = map[string]string{}
		for _, name := range slices.Sorted(mapKeys(c.files)) {
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

// readModule unpacks a module and reads its .modinfo section: NUL-separated key=value strings.
func readModule(file string) (*module, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(file, ".xz"):
		data, err = unpack(func(r io.Reader) (io.Reader, error) { return xz.NewReader(r, 0) }, data)
	case strings.HasSuffix(file, ".zst"):
		data, err = unpack(func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }, data)
	case strings.HasSuffix(file, ".gz"):
		data, err = unpack(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, data)
	}
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	m := &module{data: data}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("has no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "depends":
			for d := range strings.SplitSeq(value, ",") {
				if d != "" {
					m.depends = append(m.depends, normal(d))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			for s := range strings.FieldsSeq(value) {
				if s != "pre:" && s != "post:" {
					m.soft = append(m.soft, s)
				}
			}
		}
	}
	return m, nil
}

func unpack(open func(io.Reader) (io.Reader, error), data []byte) ([]byte, error) {
	r, err := open(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// mustBeStatic refuses a program that asks for a dynamic linker, which the archive does not have.
func mustBeStatic(data []byte) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("is no program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("is not static; build it with CGO_ENABLED=0")
		}
	}
	return nil
}
