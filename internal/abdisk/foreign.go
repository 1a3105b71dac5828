package abdisk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// foreign lists Debian's kernels of other architectures: Debian's name of the architecture, and the package that depends on the newest kernel.
var foreign = map[string][2]string{
	"arm64": {"arm64", "linux-image-cloud-arm64"},
	"arm":   {"armhf", "linux-image-armmp"},
}

// ForeignKernel is Kernel for another architecture (arm64 or arm). apt uses separate folders, so that the host's package lists do not change.
func (b *Builder) ForeignKernel(ctx context.Context, arch string) (Kernel, error) {
	f, ok := foreign[arch]
	if !ok {
		return Kernel{}, fmt.Errorf("no kernel for %s", arch)
	}
	root := b.path("kernel-" + arch)
	if err := b.cached(root, func() error { return b.fetchForeign(ctx, root, f[0], f[1]) }, f[1]); err != nil {
		return Kernel{}, err
	}
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("kernel in %s: found %d images, expected one", root, len(images))
	}
	return Kernel{Version: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"), Image: images[0], Root: root}, nil
}

func (b *Builder) fetchForeign(ctx context.Context, root, arch, meta string) error {
	if err := emptyDir(root); err != nil {
		return err
	}
	apt := filepath.Join(root, "apt")
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, dir), 0o755); err != nil {
			return err
		}
	}
	abs, err := filepath.Abs(apt)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`Dir::State "%[1]s/state"; Dir::State::status "%[1]s/status"; Dir::Cache "%[1]s/cache";
APT::Architecture "%[2]s"; APT::Architectures { "%[2]s"; }; APT::Sandbox::User "root"; Acquire::Languages "none";
`, abs, arch)
	if err := os.WriteFile(filepath.Join(apt, "status"), nil, 0o644); err != nil {
		return err
	}
	file := filepath.Join(abs, "apt.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	c := command{dir: root, env: []string{"APT_CONFIG=" + file}}
	// A mirror in the middle of an update is good enough if it has the kernel.
	if _, err := c.run(ctx, "apt-get", "-q", "update"); err != nil && b.Log != nil {
		fmt.Fprintln(b.Log, err)
	}
	deps, err := c.run(ctx, "apt-cache", "depends", meta)
	if err != nil {
		return err
	}
	var name string
	for line := range strings.Lines(deps) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && name == "" {
			name = p
		}
	}
	if _, err := c.run(ctx, "apt-get", "-q", "download", name); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(root, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("download of %s: found %d packages, expected one", name, len(debs))
	}
	if _, err := (command{}).run(ctx, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	return os.Remove(debs[0])
}
