package build_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"updater/initramfs/build"
)

// object makes a minimal ELF object with a .modinfo section, as a kernel module has, or a program when info is nil.
func object(interp bool, info ...string) []byte {
	const names = "\x00.modinfo\x00.shstrtab\x00"
	text := strings.Join(info, "\x00") + "\x00"
	var b bytes.Buffer
	head := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1}, Type: uint16(elf.ET_REL),
		Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Phentsize: 56, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	body := uint64(64)
	if interp {
		head.Phoff, head.Phnum, body = 64, 1, 64+56
	}
	head.Shoff = body + uint64(len(text)+len(names))
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put(head)
	if interp {
		put(elf.Prog64{Type: uint32(elf.PT_INTERP)})
	}
	b.WriteString(text + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: body, Size: uint64(len(text)), Addralign: 1})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: body + uint64(len(text)), Size: uint64(len(names)), Addralign: 1})
	return b.Bytes()
}

const release = "6.1.0-test"

// inputs writes everything that is packed below dir and returns the options.
func inputs(t *testing.T, dir string) build.Options {
	t.Helper()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o640); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pack := func(data []byte) []byte {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return z.EncodeAll(data, nil)
	}
	kernel := "lib/modules/" + release + "/"
	write(kernel+"modules.builtin", []byte("kernel/fs/built-in.ko\n"))
	write(kernel+"kernel/drivers/virtio-blk.ko", object(false, "alias=virtio:d00000002v*", "depends=virtio_ring,virtio,built_in"))
	write(kernel+"kernel/drivers/virtio_ring.ko.zst", pack(object(false, "depends=virtio")))
	write(kernel+"kernel/drivers/virtio.ko", object(false, "depends="))
	write(kernel+"kernel/fs/ext4.ko", object(false, "alias=fs-ext4", "softdep=pre: crypto-crc32c", "depends="))
	write(kernel+"kernel/crypto/crc32c_generic.ko", object(false, "alias=crypto-crc32c", "depends="))
	write(kernel+"kernel/crypto/crc32c_intel.ko", object(false, "alias=crypto-crc32c", "depends="))
	write(kernel+"kernel/other.ko", object(false, "depends=missing"))
	return build.Options{
		Init: write("init", object(false)), Updater: write("updater", append(object(false), "updater"...)),
		Keyring: []string{filepath.Dir(write("keys/release.asc", []byte("key")))}, Config: write("config.toml", []byte("product = 'x'\n")),
		ModulesRoot: dir, KernelVersion: release, Modules: []string{"virtio_blk", "ext4", "built-in"},
	}
}

func pack(t *testing.T, o build.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := build.Write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The same inputs in other folders, under another umask, give the same bytes.
func TestReproducible(t *testing.T) {
	for _, compress := range []string{"zstd", "none"} {
		var first []byte
		for i, umask := range []int{0o022, 0o077} {
			old := syscall.Umask(umask)
			o := inputs(t, filepath.Join(t.TempDir(), strings.Repeat("x", 1+10*i)))
			syscall.Umask(old)
			o.Compress = compress
			got := pack(t, o)
			if i == 0 {
				first = got
			} else if !bytes.Equal(got, first) {
				t.Errorf("%s: %d and %d bytes differ", compress, len(first), len(got))
			}
		}
	}
}

// What cpio(1) and the kernel see: parents before their files, fixed modes and times, and the module indexes.
func TestContent(t *testing.T) {
	o := inputs(t, t.TempDir())
	o.Compress = "none"
	archive := pack(t, o)
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files, seen := map[string]cpio.Record{}, map[string]bool{".": true}
	for _, r := range records {
		if !seen[filepath.Dir(r.Name)] {
			t.Errorf("%s comes before its folder", r.Name)
		}
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s has time %d, owner %d:%d", r.Name, r.MTime, r.UID, r.GID)
		}
		files[r.Name], seen[r.Name] = r, true
	}
	text := func(name string) string {
		t.Helper()
		r, ok := files[name]
		if !ok {
			t.Fatalf("%s is not packed; there are %v", name, slices.Sorted(maps.Keys(files)))
		}
		b := make([]byte, r.FileSize)
		if _, err := r.ReadAt(b, 0); err != nil && len(b) > 0 {
			t.Fatal(err)
		}
		return string(b)
	}
	dir := "lib/modules/" + release + "/"
	for name, want := range map[string]string{
		dir + "modules.dep":            "kernel/crc32c_generic.ko:\nkernel/ext4.ko:\nkernel/virtio.ko:\nkernel/virtio_blk.ko: kernel/virtio_ring.ko kernel/virtio.ko\nkernel/virtio_ring.ko: kernel/virtio.ko\n",
		dir + "modules.alias":          "alias crypto-crc32c crc32c_generic\nalias fs-ext4 ext4\nalias virtio:d00000002v* virtio_blk\n",
		dir + "modules.softdep":        "softdep ext4 pre: crypto-crc32c\n",
		"etc/updater/keys/release.asc": "key",
		"etc/updater/config.toml":      "product = 'x'\n",
		"sbin/modprobe":                "../bin/uinit",
		dir + "kernel/virtio_ring.ko":  string(object(false, "depends=virtio")),
	} {
		if got := text(name); got != want {
			t.Errorf("%s holds %q; want %q", name, got, want)
		}
	}
	for name, mode := range map[string]uint64{"init": 0o100755, "bin/uinit": 0o100755, "etc/updater/config.toml": 0o100644, "dev/console": 0o020600} {
		if files[name].Mode != mode {
			t.Errorf("%s has mode %o; want %o", name, files[name].Mode, mode)
		}
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	cmd := exec.Command("cpio", "-t", "--quiet")
	cmd.Stdin = bytes.NewReader(archive)
	out, err := cmd.Output()
	if err != nil || len(strings.Fields(string(out))) != len(records) {
		t.Errorf("cpio lists %d names, %v; want %d", len(strings.Fields(string(out))), err, len(records))
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *build.Options, dir string)
		want   string
	}{
		{"unknown module", func(o *build.Options, _ string) { o.Modules = []string{"nowhere"} }, "module nowhere is neither there nor built in"},
		{"missing dependency", func(o *build.Options, _ string) { o.Modules = []string{"other"} }, "module missing, needed by other"},
		{"other kernel", func(o *build.Options, _ string) { o.KernelVersion = "1.2.3" }, "modules of kernel 1.2.3"},
		{"dynamic program", func(o *build.Options, dir string) {
			o.Init = filepath.Join(dir, "dynamic")
			if err := os.WriteFile(o.Init, object(true), 0o755); err != nil {
				panic(err)
			}
		}, "is not static"},
		{"no program", func(o *build.Options, _ string) { o.Init = o.Config }, "is no program"},
		{"missing key", func(o *build.Options, _ string) { o.Keyring = []string{"/nowhere"} }, "packing the keyring"},
		{"twice", func(o *build.Options, _ string) { o.Files = map[string]string{"etc/updater/config.toml": o.Config} }, "there twice"},
		{"unknown compression", func(o *build.Options, _ string) { o.Compress = "rar" }, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := inputs(t, dir)
			c.change(&o, dir)
			if err := build.Write(new(bytes.Buffer), o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Write = %v; want %q", err, c.want)
			}
		})
	}
}

// The real thing: the running test program is static or not, as the toolchain made it.
func TestStaticProgram(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "static")
	cmd := exec.Command("go", "build", "-o", bin, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("go build: %v: %s", err, out)
	}
	o := inputs(t, dir)
	o.Init, o.Updater = bin, bin
	pack(t, o)
}
