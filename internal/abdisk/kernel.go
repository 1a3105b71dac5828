package abdisk

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Kernel is Debian's kernel package, unpacked below the work folder.
type Kernel struct {
	Version string // release, for example 6.1.0-56-amd64
	Image   string // path of vmlinuz
	Root    string // folder that holds lib/modules/VERSION, with the files that depmod makes
}

// ModulesDir returns Root/lib/modules/VERSION.
func (k Kernel) ModulesDir() string { return filepath.Join(k.Root, "lib/modules", k.Version) }

// Kernel downloads Debian's standard amd64 kernel (not the cloud one: that lacks the driver of the chipset's watchdog) with apt-get and
// unpacks it. It installs nothing and needs no root. The kernel is kept even when Debian has a newer one; remove DIR/kernel to
// renew it. It fails with a hint when apt has no package lists.
func (b *Builder) Kernel(ctx context.Context) (Kernel, error) {
	root := b.path("kernel")
	if err := b.cached(root, func() error { return b.fetchKernel(ctx, root) }, "linux-image-amd64"); err != nil {
		return Kernel{}, err
	}
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("kernel in %s: found %d images, expected one", root, len(images))
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return Kernel{Version: version, Image: images[0], Root: root}, nil
}

func (b *Builder) fetchKernel(ctx context.Context, root string) error {
	deps, err := command{}.run(ctx, "apt-cache", "depends", "linux-image-amd64")
	if err != nil {
		return fmt.Errorf("%w (run: apt-get update)", err)
	}
	var name string
	for line := range strings.Lines(deps) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok && name == "" {
			name = "linux-image-" + p
		}
	}
	if name == "" {
		return fmt.Errorf("package linux-image-amd64 depends on no kernel (run: apt-get update)")
	}
	if err := emptyDir(root); err != nil {
		return err
	}
	if _, err := (command{dir: root}).run(ctx, "apt-get", "-q", "download", name); err != nil {
		return fmt.Errorf("%w (an outdated package list? run: apt-get update)", err)
	}
	debs, _ := filepath.Glob(filepath.Join(root, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("download of %s: found %d packages, expected one", name, len(debs))
	}
	if _, err := (command{}).run(ctx, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	if err := os.Remove(debs[0]); err != nil {
		return err
	}
	_, err = command{}.run(ctx, "depmod", "-b", root, strings.TrimPrefix(strings.TrimSuffix(name, "-unsigned"), "linux-image-"))
	return err
}

// slotModules are the modules of a slot: its disk, its file systems (systemd asks for autofs4), the driver of the watchdog that GRUB
// has armed, and its network.
var slotModules = []string{
	"virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859-1", "nls_utf8", "autofs4",
	"lpc_ich", "iTCO_wdt", "virtio_net",
}

// closure returns the files (relative to ModulesDir) of the named modules and of all their dependencies, each after its dependencies.
func (k Kernel) closure(names []string) ([]string, error) {
	f, err := os.Open(filepath.Join(k.ModulesDir(), "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	deps := map[string][]string{} // by normalised module name: its file, then its dependencies as modprobe would need them, last first
	norm := func(file string) string {
		return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
	}
	for s := bufio.NewScanner(f); s.Scan(); {
		file, rest, ok := strings.Cut(s.Text(), ":")
		if ok {
			deps[norm(file)] = append([]string{file}, strings.Fields(rest)...)
		}
	}
	var out []string
	for _, n := range names {
		d, ok := deps[norm(n)]
		if !ok {
			return nil, fmt.Errorf("kernel %s: no module %s", k.Version, n)
		}
		for _, file := range slices.Backward(d) {
			if !slices.Contains(out, file) {
				out = append(out, file)
			}
		}
	}
	return out, nil
}

func emptyDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}
