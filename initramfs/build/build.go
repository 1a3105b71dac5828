// Package build packs the initramfs on the host: u-root's init, the updater as /bin/uinit, keyring, configuration, and the
// requested kernel modules with their dependencies and firmware.
//
// Builds are reproducible: equal inputs give equal bytes, independent of paths, umask and machine. Modes are fixed, names
// sorted, times 0.
//
// If another archive is appended, the kernel unpacks both and the later file takes precedence. Keyring and configuration are
// therefore sealed: the packed updater contains their digest and refuses others. An appended archive can still replace the
// program or a module; where that matters, sign the whole image (a UKI under Secure Boot, or a FIT image).
package build

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"updater/initramfs"
)

// Options name the inputs, as paths on the host. Init and Updater are required.
type Options struct {
	Init    string            // u-root's init, statically linked
	Updater string            // the updater, statically linked
	Keyring []string          // certificate files or directories of them, packed into etc/updater/keys
	Config  string            // packed as etc/updater/config.toml; "" packs none
	Policy  []string          // further files for etc/updater, such as server certificates; sealed as well
	Files   map[string]string // further files of mode 0644: paths on the host by paths in the archive

	ModulesRoot   string   // directory with lib/modules/KernelVersion and lib/firmware; "" is /
	Kernel        string   // image of the kernel that will run the initramfs, to check its release; "" skips the check
	KernelVersion string   // release; "" is that of Kernel. Without both, no modules are packed
	Modules       []string // names of modules or [Sets]; built-in modules are skipped

	Compress string // zstd, xz or none; "" is zstd
}

// Parts of a report.
const (
	partInit     = "u-root init"
	partUpdater  = "updater"
	partPolicy   = "keyring and configuration"
	partFiles    = "further files"
	partModules  = "modules"
	partFirmware = "firmware"
)

// Write writes the archive to w in the newc format (kernel, Documentation/driver-api/early-userspace) and reports its contents.
func Write(w io.Writer, o Options) (*Report, error) {
	p := &packing{tree: tree{}, parts: map[string]tree{}, report: new(Report)}
	for _, dir := range []string{"dev", "proc", "sys", "etc", "bin", "sbin", "tmp", "run", "root", "mnt", "lib", "etc/updater/keys"} {
		p.tree.dir(dir)
	}
	p.tree["dev/console"] = cpio.CharDev("dev/console", 0o600, 5, 1)
	p.tree["dev/null"] = cpio.CharDev("dev/null", 0o666, 1, 3)
	if err := p.fill(o); err != nil {
		return nil, err
	}
	compress := cmp.Or(o.Compress, "zstd")
	for _, name := range []string{partInit, partUpdater, partPolicy, partFiles, partModules, partFirmware} {
		if err := p.measure(name, compress); err != nil {
			return nil, err
		}
	}
	return p.report, p.tree.write(w, compress)
}

// packing is one run of Write.
type packing struct {
	tree    tree
	parts   map[string]tree // the same files, by part
	machine elf.Machine     // architecture of the programs
	report  *Report
}

func (p *packing) fill(o Options) error {
	release := o.KernelVersion
	if o.Kernel != "" {
		is, err := KernelRelease(o.Kernel)
		if err != nil {
			return err
		}
		if release != "" && release != is {
			return fmt.Errorf("kernel image %s has release %s, expected %s", o.Kernel, is, release)
		}
		release = is
	}
	policy, err := Policy(o)
	if err != nil {
		return err
	}
	for name, data := range policy {
		if err := p.file(partPolicy, name, data, 0o644); err != nil {
			return err
		}
	}
	if err := p.programs(o, policy); err != nil {
		return err
	}
	for name, host := range o.Files {
		data, err := os.ReadFile(host)
		if err != nil {
			return fmt.Errorf("packing %s: %w", name, err)
		}
		if err := p.file(partFiles, name, data, 0o644); err != nil {
			return err
		}
	}
	if release == "" {
		return nil
	}
	return p.modules(cmp.Or(o.ModulesRoot, "/"), release, o.Modules)
}

// programs adds init and the updater, sealed with the policy.
func (p *packing) programs(o Options, policy map[string][]byte) error {
	init, machine, err := readProgram("init", o.Init)
	if err != nil {
		return err
	}
	updater, own, err := readProgram("bin/uinit", o.Updater)
	if err != nil {
		return err
	}
	if machine != own {
		return fmt.Errorf("%s is for %s, %s is for %s", o.Init, machine, o.Updater, own)
	}
	if len(policy) > 0 {
		if updater, err = stampSeal(updater, policy); err != nil {
			return fmt.Errorf("packing %s as bin/uinit: %w", o.Updater, err)
		}
	}
	p.machine = machine
	p.tree["bin/updater"] = cpio.Symlink("bin/updater", "uinit")
	p.tree["sbin/modprobe"] = cpio.Symlink("sbin/modprobe", "../bin/uinit")
	if err := p.file(partInit, "init", init, 0o755); err != nil {
		return err
	}
	return p.file(partUpdater, "bin/uinit", updater, 0o755)
}

// readProgram reads a statically linked executable.
func readProgram(name, host string) ([]byte, elf.Machine, error) {
	data, err := os.ReadFile(host)
	if err != nil {
		return nil, 0, fmt.Errorf("packing %s: %w", name, err)
	}
	machine, err := staticProgram(data)
	if err != nil {
		return nil, 0, fmt.Errorf("packing %s as %s: %w", host, name, err)
	}
	return data, machine, nil
}

// file adds a file to the archive and to a part of the report.
func (p *packing) file(part, name string, data []byte, mode uint64) error {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if part == partFiles && (clean == initramfs.PolicyDir || strings.HasPrefix(clean, initramfs.PolicyDir+"/")) {
		return fmt.Errorf("packing %s: /%s is reserved for keyring and configuration", clean, initramfs.PolicyDir)
	}
	if _, ok := p.tree[clean]; ok {
		return fmt.Errorf("packing %s: duplicate file", clean)
	}
	p.tree.dir(path.Dir(clean))
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		mode &= 0o700 // a key that others can read is refused
	}
	p.tree[clean] = cpio.StaticFile(clean, string(data), mode)
	if p.parts[part] == nil {
		p.parts[part] = tree{}
	}
	p.parts[part][clean] = p.tree[clean]
	return nil
}

// measure adds a part to the report, with its size when compressed alone.
func (p *packing) measure(name, compress string) error {
	t := p.parts[name]
	if len(t) == 0 {
		return nil
	}
	part := Part{Name: name}
	for _, r := range t {
		part.Bytes += int64(r.FileSize)
	}
	var n counter
	if err := t.write(&n, compress); err != nil {
		return err
	}
	part.Packed = int64(n)
	p.report.Parts = append(p.report.Parts, part)
	return nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Policy reads keyring and configuration, by name in the archive.
func Policy(o Options) (map[string][]byte, error) {
	policy := map[string][]byte{}
	add := func(name, host string) error {
		if _, twice := policy[name]; twice {
			return fmt.Errorf("packing %s: duplicate file", name)
		}
		data, err := os.ReadFile(host)
		policy[name] = data
		return err
	}
	if o.Config != "" {
		if err := add(initramfs.PolicyDir+"/config.toml", o.Config); err != nil {
			return nil, fmt.Errorf("packing the configuration: %w", err)
		}
	}
	for _, host := range o.Policy {
		if err := add(initramfs.PolicyDir+"/"+filepath.Base(host), host); err != nil {
			return nil, fmt.Errorf("packing the configuration: %w", err)
		}
	}
	for _, host := range o.Keyring {
		files, err := keyFiles(host)
		if err != nil {
			return nil, fmt.Errorf("packing the keyring: %w", err)
		}
		for _, f := range files {
			if err := add(initramfs.PolicyDir+"/keys/"+filepath.Base(f), f); err != nil {
				return nil, fmt.Errorf("packing the keyring: %w", err)
			}
		}
	}
	return policy, nil
}

// keyFiles lists a certificate file, or the files of a directory except hidden ones.
func keyFiles(host string) ([]string, error) {
	info, err := os.Stat(host)
	if err != nil || !info.IsDir() {
		return []string{host}, err
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(host, e.Name()))
		}
	}
	return files, nil
}
