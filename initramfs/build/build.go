// Package build packs the initramfs on the host: u-root's init, the updater as its /bin/uinit, the keyring,
// the configuration, and the kernel modules that were asked for with what they depend on.
//
// The same inputs give the same bytes wherever they lie and whatever the umask is: modes are fixed here,
// names are sorted, times are 0. A second archive may be appended to the result; the kernel unpacks both, and
// the later file wins. So whoever can append can replace the keyring: have the whole image signed where that
// matters (secure boot, FIT).
package build

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
)

// Options name what goes in. Init and Updater are required.
type Options struct {
	Init    string            // u-root's init, static
	Updater string            // our binary, static
	Keyring []string          // certificate files, or folders of them -> etc/updater/keys
	Config  string            // -> etc/updater/config.toml; "" packs none
	Files   map[string]string // further files: path in the archive to path on the host, mode 0644

	ModulesRoot   string   // below it lies lib/modules/KernelVersion; "" is /
	KernelVersion string   // "" packs no modules
	Modules       []string // names; built-in ones are left out

	Compress string // "zstd" or "none"; "" is zstd
}

// Write packs the archive into w, in the newc format (kernel, Documentation/driver-api/early-userspace).
func Write(w io.Writer, o Options) error {
	t := tree{}
	for _, dir := range []string{"dev", "proc", "sys", "etc", "bin", "sbin", "tmp", "run", "root", "mnt", "lib", "etc/updater/keys"} {
		t.dir(dir)
	}
	t["dev/console"] = cpio.CharDev("dev/console", 0o600, 5, 1)
	t["dev/null"] = cpio.CharDev("dev/null", 0o666, 1, 3)
	if err := t.program("init", o.Init); err != nil {
		return err
	}
	if err := t.program("bin/uinit", o.Updater); err != nil {
		return err
	}
	t["bin/updater"] = cpio.Symlink("bin/updater", "uinit")
	t["sbin/modprobe"] = cpio.Symlink("sbin/modprobe", "../bin/uinit")
	if o.Config != "" {
		if err := t.hostFile("etc/updater/config.toml", o.Config); err != nil {
			return err
		}
	}
	for _, k := range o.Keyring {
		if err := t.keys(k); err != nil {
			return err
		}
	}
	for name, host := range o.Files {
		if err := t.hostFile(name, host); err != nil {
			return err
		}
	}
	if o.KernelVersion != "" {
		if err := t.modules(cmp.Or(o.ModulesRoot, "/"), o.KernelVersion, o.Modules); err != nil {
			return err
		}
	}
	return t.write(w, cmp.Or(o.Compress, "zstd"))
}

// tree is the content of the archive by path.
type tree map[string]cpio.Record

// dir adds a folder and those above it, which the kernel does not make by itself.
func (t tree) dir(name string) {
	for ; name != "." && name != "/"; name = path.Dir(name) {
		if _, ok := t[name]; ok {
			return
		}
		t[name] = cpio.Directory(name, 0o755)
	}
}

func (t tree) file(name string, data []byte, mode uint64) error {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if _, ok := t[clean]; ok {
		return fmt.Errorf("packing %s: it is there twice", clean)
	}
	t.dir(path.Dir(clean))
	t[clean] = cpio.StaticFile(clean, string(data), mode)
	return nil
}

func (t tree) hostFile(name, host string) error {
	data, err := os.ReadFile(host)
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	return t.file(name, data, 0o644)
}

// program adds an executable; one that needs a dynamic linker would not start.
func (t tree) program(name, host string) error {
	data, err := os.ReadFile(host)
	if err != nil {
		return fmt.Errorf("packing %s: %w", name, err)
	}
	if err := mustBeStatic(data); err != nil {
		return fmt.Errorf("packing %s as %s: %w", host, name, err)
	}
	return t.file(name, data, 0o755)
}

// keys adds a certificate file, or those of a folder.
func (t tree) keys(host string) error {
	info, err := os.Stat(host)
	if err != nil {
		return fmt.Errorf("packing the keyring: %w", err)
	}
	if !info.IsDir() {
		return t.hostFile("etc/updater/keys/"+filepath.Base(host), host)
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return fmt.Errorf("packing the keyring: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := t.hostFile("etc/updater/keys/"+e.Name(), filepath.Join(host, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) write(w io.Writer, compress string) error {
	out := nopCloser(w)
	switch compress {
	case "none":
	case "zstd":
		// One goroutine and a fixed window: the bytes do not depend on the machine.
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
		if err != nil {
			return err
		}
		out = z
	default:
		return fmt.Errorf("compression %q is unknown; expected zstd or none", compress)
	}
	records := make([]cpio.Record, 0, len(t))
	for _, r := range t {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	cpio.MakeAllReproducible(records)
	rw := cpio.Newc.Writer(out)
	if err := cpio.WriteRecords(rw, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(rw); err != nil {
		return err
	}
	return out.Close()
}

func nopCloser(w io.Writer) io.WriteCloser {
	return struct {
		io.Writer
		io.Closer
	}{w, io.NopCloser(nil)}
}
