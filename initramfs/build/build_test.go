package build_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

// sealPlace is the placeholder in a real updater (TestRealSeal).
const sealPlace = "updater-policy-seal:0000000000000000000000000000000000000000000000000000000000000000"

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
	write("lib/firmware/net/card.bin.zst", pack([]byte("firmware")))
	write(kernel+"kernel/net/card.ko", object(false, "vermagic="+release+" SMP", "firmware=net/card.bin", "firmware=net/none.bin", "softdep=pre: virtio post: late"))
	write(kernel+"kernel/net/late.ko", object(false))
	write(kernel+"modules.builtin", []byte("kernel/fs/built-in.ko\n"))
	write(kernel+"kernel/drivers/virtio-blk.ko", object(false, "alias=virtio:d00000002v*", "depends=virtio_ring,virtio,built_in"))
	write(kernel+"kernel/drivers/virtio_ring.ko.zst", pack(object(false, "depends=virtio")))
	write(kernel+"kernel/drivers/virtio.ko", object(false, "depends="))
	write(kernel+"kernel/fs/ext4.ko", object(false, "alias=fs-ext4", "softdep=pre: crypto-crc32c", "depends="))
	write(kernel+"kernel/crypto/crc32c_generic.ko", object(false, "alias=crypto-crc32c", "depends="))
	write(kernel+"kernel/crypto/crc32c_intel.ko", object(false, "alias=crypto-crc32c", "depends="))
	write(kernel+"kernel/other.ko", object(false, "depends=missing"))
	return build.Options{
		Init: write("init", object(false)), Updater: write("updater", append(object(false), sealPlace...)),
		Keyring: []string{filepath.Dir(write("keys/release.asc", []byte("key")))}, Config: write("config.toml", []byte("product = 'x'\n")),
		ModulesRoot: dir, KernelVersion: release, Modules: []string{"virtio_blk", "ext4", "built-in"},
	}
}

func pack(t *testing.T, o build.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := build.Write(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The same inputs in other folders, under another umask, give the same bytes.
func TestReproducible(t *testing.T) {
	for _, compress := range []string{"zstd", "xz", "none"} {
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

// The archive as cpio(1) and the kernel see it: parents before their files, fixed modes and times, and the module indexes.
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
		{"unknown module", func(o *build.Options, _ string) { o.Modules = []string{"nowhere"} }, "module nowhere (requested): not found"},
		{"missing dependency", func(o *build.Options, _ string) { o.Modules = []string{"other"} }, "module missing (needed by other): not found"},
		{"other kernel", func(o *build.Options, _ string) { o.KernelVersion = "1.2.3" }, "modules of kernel 1.2.3"},
		{"dynamic program", func(o *build.Options, dir string) {
			o.Init = filepath.Join(dir, "dynamic")
			if err := os.WriteFile(o.Init, object(true), 0o755); err != nil {
				panic(err)
			}
		}, "dynamically linked"},
		{"no program", func(o *build.Options, _ string) { o.Init = o.Config }, "not an ELF program"},
		{"missing key", func(o *build.Options, _ string) { o.Keyring = []string{"/nowhere"} }, "packing the keyring"},
		{"twice", func(o *build.Options, _ string) { o.Files = map[string]string{"init": o.Config} }, "duplicate file"},
		{"module of another kernel", func(o *build.Options, dir string) {
			o.Modules = []string{"foreign"}
			foreign(o.ModulesRoot, object(false, "vermagic=5.10.0-test SMP mod_unload "))
		}, "module foreign is for kernel 5.10.0-test"},
		{"module of another machine", func(o *build.Options, dir string) {
			o.Modules = []string{"foreign"}
			ko := object(false)
			ko[18] = byte(elf.EM_AARCH64)
			foreign(o.ModulesRoot, ko)
		}, "module foreign is for EM_AARCH64, expected EM_X86_64"},
		{"firmware outside its folder", func(o *build.Options, dir string) {
			o.Modules = []string{"foreign"}
			foreign(o.ModulesRoot, object(false, "firmware=../../etc/passwd"))
		}, "outside lib/firmware"},
		{"kernel image of another release", func(o *build.Options, dir string) { o.Kernel = bzImage(dir, "6.1.0-56-amd64 (x) #1") }, "has release 6.1.0-56-amd64, expected 6.1.0-test"},
		{"no kernel image", func(o *build.Options, _ string) { o.Kernel = o.Config }, "no release found"},
		{"empty set", func(o *build.Options, _ string) { o.Modules = []string{"watchdog"} }, "set watchdog: no member found"},
		{"no place for the seal", func(o *build.Options, _ string) { o.Updater = o.Init }, "no placeholder for the seal"},
		{"policy among the files", func(o *build.Options, _ string) { o.Files = map[string]string{"etc/updater/keys/x": o.Config} }, "is reserved for keyring and configuration"},
		{"unknown compression", func(o *build.Options, _ string) { o.Compress = "rar" }, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := inputs(t, dir)
			c.change(&o, dir)
			if _, err := build.Write(new(bytes.Buffer), o); err == nil || !strings.Contains(err.Error(), c.want) {
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
	o.Init = bin
	pack(t, o)
}

func foreign(root string, ko []byte) {
	if err := os.WriteFile(filepath.Join(root, "lib/modules", release, "foreign.ko"), ko, 0o600); err != nil {
		panic(err)
	}
}

// bzImage makes the header of an x86 kernel image.
func bzImage(dir, version string) string {
	b := make([]byte, 0x300)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x80)
	copy(b[0x280:], version)
	name := filepath.Join(dir, "vmlinuz")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		panic(err)
	}
	return name
}

// A kernel image names the release whose modules are packed; the members of a set that the kernel has are packed; the report gives the reason for
// each.
func TestReport(t *testing.T) {
	o := inputs(t, t.TempDir())
	o.Kernel, o.KernelVersion = bzImage(t.TempDir(), release+" (gcc) #1"), ""
	o.Modules = []string{"fs", "virtio", "card", "built-in"}
	r, err := build.Write(new(bytes.Buffer), o)
	if err != nil {
		t.Fatal(err)
	}
	why := map[string]string{}
	for _, m := range r.Modules {
		why[m.Name] = m.Why
	}
	want := map[string]string{
		"ext4": "set fs", "crc32c_generic": "soft dependency of ext4 (crypto-crc32c)", "virtio_blk": "set virtio", "virtio_ring": "needed by virtio_blk",
		"virtio": "needed by virtio_ring", "card": "requested", "late": "soft dependency of card (late)",
	}
	if !maps.Equal(why, want) {
		t.Errorf("modules = %v; want %v", why, want)
	}
	if !slices.Contains(r.BuiltIn, "built_in") || !slices.Contains(r.LeftOut, "virtio_mmio") {
		t.Errorf("built in %v, left out %v", r.BuiltIn, r.LeftOut)
	}
	if len(r.Firmware) != 2 || !r.Firmware[0].Found || r.Firmware[0].Bytes != 8 || r.Firmware[1].Found {
		t.Errorf("firmware = %+v; want net/card.bin, unpacked, and net/none.bin missing", r.Firmware)
	}
	var sum int64
	for _, p := range r.Parts {
		if p.Bytes == 0 || p.Packed == 0 {
			t.Errorf("part %+v has no size", p)
		}
		sum += p.Packed
	}
	if r.Total() <= 0 || r.Total() >= sum {
		t.Errorf("Total() = %d of %d; want it without modules and firmware", r.Total(), sum)
	}
	var text bytes.Buffer
	if err := errors.Join(r.PrintParts(&text), r.Print(&text)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"soft dependency of ext4 (crypto-crc32c)", "firmware net/none.bin", "not found", "built into the kernel: built_in", "of 6656"} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("the report has no %q:\n%s", line, &text)
		}
	}
}

// xz(1) unpacks the archive, as the kernel must: its check is CRC32, the only one that the kernel knows.
func TestXZ(t *testing.T) {
	tool, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("xz is not installed")
	}
	o := inputs(t, t.TempDir())
	o.Compress = "none"
	plain := pack(t, o)
	o.Compress = "xz"
	name := filepath.Join(t.TempDir(), "a.xz")
	if err := os.WriteFile(name, pack(t, o), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(tool, "-dc", name).Output()
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("xz -d gives %d bytes, %v; want the %d of the archive", len(got), err, len(plain))
	}
	list, err := exec.Command(tool, "--robot", "--list", name).Output()
	if err != nil || !strings.Contains(string(list), "CRC32") {
		t.Errorf("xz --list: %s, %v; want CRC32", list, err)
	}
}

// Every byte of keyring and configuration changes the seal, and so does every name.
func TestSeal(t *testing.T) {
	seal := func(change func(o *build.Options)) string {
		t.Helper()
		o := inputs(t, t.TempDir())
		o.Compress = "none"
		change(&o)
		archive := pack(t, o)
		at := bytes.Index(archive, []byte(sealPlace[:20]))
		return string(archive[at+20 : at+84])
	}
	replace := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	same := seal(func(*build.Options) {})
	if same != seal(func(*build.Options) {}) || same == sealPlace[20:] {
		t.Errorf("seal %s is not a function of the policy", same)
	}
	for name, change := range map[string]func(o *build.Options){
		"key":           func(o *build.Options) { replace(filepath.Join(o.Keyring[0], "release.asc"), "kex") },
		"further key":   func(o *build.Options) { replace(filepath.Join(o.Keyring[0], "evil.asc"), "key") },
		"configuration": func(o *build.Options) { replace(o.Config, "product = 'y'\n") },
	} {
		if got := seal(change); got == same {
			t.Errorf("another %s has the same seal", name)
		}
	}
}

// The real updater has exactly one place for the seal, for every architecture; sealed, it refuses other keys and configurations.
func TestRealSeal(t *testing.T) {
	dir := t.TempDir()
	for _, arch := range slices.Compact([]string{"amd64", "arm64", runtime.GOARCH}) { // make size builds the others
		bin := filepath.Join(dir, arch)
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, "updater/cmd/updater")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build for %s: %v: %s", arch, err, out)
		}
		data, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(data, []byte(sealPlace)); n != 1 {
			t.Errorf("%s: %d places for the seal; want 1", arch, n)
		}
	}
	bin := filepath.Join(dir, runtime.GOARCH)
	o := inputs(t, dir)
	o.Init, o.Updater, o.Compress, o.KernelVersion = bin, bin, "none", ""
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(pack(t, o))))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Name != "bin/uinit" {
			continue
		}
		body := make([]byte, r.FileSize)
		if _, err := r.ReadAt(body, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(bin, body, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"verify --keyring " + dir + " --bmap " + o.Config, "is sealed with its keyring"},
		{"status --config " + o.Config, "accepts no other"},
		{"status", "differs from the keyring and configuration packed"}, // the host's /etc/updater
	} {
		cmd := exec.Command(bin, strings.Fields(c.args)...)
		cmd.Args[0] = "updater"
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("updater %s: %v: %s; want %q", c.args, err, out, c.want)
		}
	}
}
