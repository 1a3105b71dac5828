package build

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// module is a kernel module and its .modinfo.
type module struct {
	data      []byte // uncompressed
	machine   elf.Machine
	vermagic  string // kernel release; "" if not recorded
	depends   []string
	pre, post []string // soft dependencies, module names or aliases
	aliases   []string
	firmware  []string
	why       string
}

// readModule decompresses a module and parses its .modinfo section: NUL-separated key=value strings.
func readModule(file string) (*module, error) {
	data, err := readUnpacked(file)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	m := &module{data: data, machine: f.Machine}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		m.take(key, value)
	}
	return m, nil
}

func (m *module) take(key, value string) {
	switch key {
	case "vermagic":
		m.vermagic, _, _ = strings.Cut(value, " ")
	case "depends":
		for d := range strings.SplitSeq(value, ",") {
			if d != "" {
				m.depends = append(m.depends, normal(d))
			}
		}
	case "alias":
		m.aliases = append(m.aliases, value)
	case "firmware":
		m.firmware = append(m.firmware, value)
	case "softdep":
		list := &m.pre
		for s := range strings.FieldsSeq(value) {
			switch s {
			case "pre:":
				list = &m.pre
			case "post:":
				list = &m.post
			default:
				*list = append(*list, s)
			}
		}
	}
}

// softdep returns the line of modules.softdep for the module; "" if it has no soft dependencies.
func (m *module) softdep(name string) string {
	line := ""
	if len(m.pre) > 0 {
		line += " pre: " + strings.Join(m.pre, " ")
	}
	if len(m.post) > 0 {
		line += " post: " + strings.Join(m.post, " ")
	}
	if line == "" {
		return ""
	}
	return "softdep " + name + line + "\n"
}

// readUnpacked reads a file of the host and decompresses it according to its extension.
func readUnpacked(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.HasSuffix(file, ".xz"):
		return unpack(func(r io.Reader) (io.Reader, error) { return xz.NewReader(r, 0) }, data)
	case strings.HasSuffix(file, ".zst"):
		return unpack(func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }, data)
	case strings.HasSuffix(file, ".gz"):
		return unpack(func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }, data)
	}
	return data, nil
}

func unpack(open func(io.Reader) (io.Reader, error), data []byte) ([]byte, error) {
	r, err := open(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// staticProgram returns the architecture of a program. It refuses programs that need a dynamic linker, which the archive does
// not contain.
func staticProgram(data []byte) (elf.Machine, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return 0, fmt.Errorf("not an ELF program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return 0, errors.New("dynamically linked, expected a static program; build it with CGO_ENABLED=0")
		}
	}
	return f.Machine, nil
}
