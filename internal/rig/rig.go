// Package rig is a device for tests of the whole program: a disk image with two slots, a boot loader's state, keys and a signed image in a
// folder, and the program that is built from this tree.
package rig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shared are the fixtures and programs of all tests of a process, made once.
var shared struct {
	fixtures, program sync.Once
	dir               string // of the fixtures
	bin               string
}

// Build builds the program once for all tests of a process. Their TestMain must run [Cleanly].
func Build(t testing.TB) string {
	t.Helper()
	shared.program.Do(func() {
		dir, err := os.MkdirTemp("", "updater")
		if err != nil {
			t.Fatal(err)
		}
		shared.bin = filepath.Join(dir, "updater")
		BuildStamped(t, shared.bin, "")
	})
	return shared.bin
}

// BuildStamped builds the program with a build time, RFC 3339; "" means none.
func BuildStamped(t testing.TB, path, stamp string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-ldflags", "-X main.stampTime="+stamp, "-o", path, "updater/cmd/updater")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v: %s", err, out)
	}
}

// Shared is the folder of the fixtures that every [Rig] copies; "" before the first.
func Shared() string { return shared.dir }

// Cleanly runs tests and removes the fixtures and programs that they shared.
func Cleanly(m *testing.M) interface{ Run() int } { return cleanly{m} }

type cleanly struct{ *testing.M }

func (c cleanly) Run() int {
	code := c.M.Run()
	if shared.dir != "" {
		_ = exec.Command("gpgconf", "--homedir", filepath.Join(shared.dir, "gnupg"), "--kill", "all").Run()
		_ = os.RemoveAll(shared.dir)
	}
	if shared.bin != "" {
		_ = os.RemoveAll(filepath.Dir(shared.bin))
	}
	return code
}

// Rig is a device in a folder: a disk image with two slots, GRUB's environment and a state partition, a keyring, and a
// signed image. The built program runs on it.
type Rig struct {
	*testing.T
	Dir     string
	Env     []string // of every program that it runs
	Program string   // path of the program that it runs
}

// New makes a device. It skips the test if a tool of the host is missing.
func New(t *testing.T) *Rig {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "grub-editenv", "mkenvimage", "gpg"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	shared.fixtures.Do(func() {
		dir, err := os.MkdirTemp("", "updater") // short: gpg's socket has a path of at most 108 bytes
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		Fixtures(t, dir)
	})
	r := &Rig{T: t, Dir: t.TempDir(), Program: Build(t)}
	r.Env = append(os.Environ(), "GNUPGHOME="+filepath.Join(shared.dir, "gnupg"), "LC_ALL=C",
		"PATH="+filepath.Dir(r.Program)+":"+os.Getenv("PATH")) // for scripts that call updater
	r.Sh(`cp -r --sparse=always "$0"/image.img* "$0"/clear.bmap "$0"/other.sig "$0"/other.asc "$0"/image.sig "$0"/keys .
		cp --sparse=always "$0/grub.img" disk.img; cp --sparse=always "$0/grub.img" disk.orig`, shared.dir)
	r.Configure("", "")
	return r
}

// Configure writes the configuration with further lines at its top and further tables at its end.
func (r *Rig) Configure(top, tables string) {
	r.Helper()
	r.Write("config.toml", []byte(top+"\n"+Configs["grub"]+tables))
}

// Path is the path of a file of the device.
func (r *Rig) Path(name string) string { return filepath.Join(r.Dir, name) }

// Write writes a file.
func (r *Rig) Write(name string, data []byte) {
	r.Helper()
	if err := os.WriteFile(r.Path(name), data, 0o600); err != nil {
		r.Fatal(err)
	}
}

// Read reads a file.
func (r *Rig) Read(name string) []byte {
	r.Helper()
	data, err := os.ReadFile(r.Path(name))
	if err != nil {
		r.Fatal(err)
	}
	return data
}

// Sh runs a script in the device's folder.
func (r *Rig) Sh(script string, args ...string) string {
	r.Helper()
	cmd := exec.Command("bash", append([]string{"-euc", script}, args...)...)
	cmd.Dir, cmd.Env = r.Dir, r.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// Command is the program, not yet started.
func (r *Rig) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.Program, args...)
	cmd.Dir, cmd.Env = r.Dir, r.Env
	return cmd
}

// Run runs the program and returns its exit code, its standard output, and its standard error.
func (r *Rig) Run(args ...string) (code int, out, errs string) {
	r.Helper()
	return finish(r.T, r.Command(args...))
}

// Run runs the program in the folder of the test.
func Run(t testing.TB, args ...string) (code int, out, errs string) {
	t.Helper()
	return finish(t, exec.Command(Build(t), args...))
}

func finish(t testing.TB, cmd *exec.Cmd) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return code, stdout.String(), stderr.String()
}

// Expect runs the program and fails the test unless the exit code is right and the output contains the words.
func (r *Rig) Expect(want int, words string, args ...string) string {
	r.Helper()
	code, out, errs := r.Run(args...)
	if all := out + errs; code != want || !strings.Contains(all, words) {
		r.Errorf("updater %s: exit %d; want %d with %q:\n%s", strings.Join(args, " "), code, want, words, all)
	}
	return out + errs
}

// Install is Expect for updater install with the configuration of the device.
func (r *Rig) Install(want int, words string, args ...string) string {
	r.Helper()
	return r.Expect(want, words, append([]string{"install", "--config", "config.toml"}, args...)...)
}

// Refused fails the test unless an install is refused and nothing is written.
func (r *Rig) Refused(want int, words string, args ...string) {
	r.Helper()
	r.Install(want, words, args...)
	r.Pristine()
}

// Pristine fails the test when the disk has changed.
func (r *Rig) Pristine() {
	r.Helper()
	if !bytes.Equal(r.Read("disk.img"), r.Read("disk.orig")) {
		r.Error("the disk has changed")
		r.Sh("cp --sparse=always disk.orig disk.img")
	}
}

// Next is the slot that GRUB boots next.
func (r *Rig) Next() string {
	r.Helper()
	vars := r.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.cur && grub-editenv env.cur list`)
	order := regexp.MustCompile(`(?m)^ORDER=(.*)$`).FindStringSubmatch(vars)
	if order == nil {
		r.Fatalf("no ORDER in %q", vars)
	}
	for s := range strings.FieldsSeq(order[1]) {
		if strings.Contains(vars, s+"_OK=1") && strings.Contains(vars, s+"_TRY=0") {
			return s
		}
	}
	return ""
}

// Sign signs a file with keys, detached and binary, beside it.
func (r *Rig) Sign(name string, keys ...string) {
	r.Helper()
	var args strings.Builder
	for _, k := range keys {
		args.WriteString(" -u " + k + "@example.com")
	}
	r.Sh("rm -f $0.sig; gpg -q --batch"+args.String()+" --detach-sign -o $0.sig $0", name)
}

// Bmap makes a signed bmap of image.img.
func (r *Rig) Bmap(name string, keys []string, flags ...string) {
	r.Helper()
	r.Expect(0, "", append(append([]string{"bmap", "create", "--max-range", "256K", "-o", name}, flags...), "image.img")...)
	r.Sign(name, keys...)
}

// Release is the key that the fixtures are signed with.
var Release = []string{"release"}

// Edited signs a changed copy of image.img.bmap, with the checksum of the file itself made right again.
func (r *Rig) Edited(name string, edit func(text string) string) {
	r.Helper()
	old := string(r.Read("image.img.bmap"))
	text := edit(old)
	if text == old {
		r.Fatalf("%s: nothing was edited", name)
	}
	r.Write(name, []byte(Resum(text)))
	r.Sign(name, Release...)
}

// Resum puts the right BmapFileChecksum into a bmap.
func Resum(text string) string {
	field := regexp.MustCompile(`(<BmapFileChecksum>\s*)[0-9a-f]{64}`)
	text = field.ReplaceAllString(text, "${1}"+strings.Repeat("0", 64))
	sum := sha256.Sum256([]byte(text))
	return field.ReplaceAllString(text, "${1}"+hex.EncodeToString(sum[:]))
}

// Files lists every file below the device's folder with its size and time.
func (r *Rig) Files() []string {
	r.Helper()
	var list []string
	err := filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().Format(time.RFC3339Nano)))
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// Sizes of the fixtures, in bytes.
const (
	SlotBytes  = 16 << 20
	ImageBytes = 8<<20 + 1000 // ends inside a block
)

// SlotOffset is where a slot begins on the fixtures' disks, in bytes.
func SlotOffset(backend, slot string) int64 {
	return map[string]int64{"grub": 9, "uboot": 2}[backend]<<20 + map[string]int64{"A": 0, "B": SlotBytes}[slot]
}

// Fixtures makes disk images with the real tools (sgdisk, mkfs.vfat, grub-editenv, mkenvimage, gpg), keys and a signed image in a folder.
func Fixtures(t *testing.T, dir string) {
	t.Helper()
	sh := func(script string) {
		t.Helper()
		cmd := exec.Command("bash", "-euc", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GNUPGHOME="+filepath.Join(dir, "gnupg"), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	sh(`mkdir -m 700 gnupg keys
		for who in release other; do
			gpg -q --batch --passphrase '' --quick-generate-key "$who <$who@example.com>" ed25519 sign never 2>/dev/null
			gpg -q --armor --export $who@example.com > $who.asc
		done
		cp release.asc keys/`)
	sh(fmt.Sprintf(`head -c 700000 /dev/urandom > data
		truncate -s %d image.img
		dd if=data of=image.img conv=notrunc status=none
		dd if=data of=image.img bs=4096 seek=700 conv=notrunc status=none
		head -c 1000 data | dd of=image.img bs=4096 seek=2048 conv=notrunc status=none
		truncate -s %d big.img; dd if=data of=big.img conv=notrunc status=none
		yes A | head -c %d > slot_a; yes B | head -c %d > slot_b`, ImageBytes, SlotBytes+4096, SlotBytes, SlotBytes))
	for _, img := range []string{"image.img", "big.img"} {
		cmd := exec.Command(Build(t), "bmap", "create", "--max-range", "256K", "-o", img+".bmap", img)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("bmap create %s: %v: %s", img, err, out)
		}
		sh("gpg -q --batch -u release@example.com --armor --detach-sign " + img + ".bmap")
	}
	sh(`gpg -q --batch -u release@example.com --clearsign -o clear.bmap image.img.bmap
		gpg -q --batch -u other@example.com --armor --detach-sign -o other.sig image.img.bmap
		gpg -q --batch -u release@example.com --detach-sign -o image.sig image.img.bmap
		gpgconf --kill all 2>/dev/null || true`)
	const slots = `-n2:0:+16M -c2:rootfs_a -n3:0:+16M -c3:rootfs_b -n4:0:+1M -c4:state`
	fill := `for s in a:2 b:3; do
			dd if=slot_${s%:*} of=$disk bs=512 seek=$(sgdisk -i${s#*:} $disk | awk '/First sector/{print $3}') conv=notrunc status=none
		done`
	sh(`disk=grub.img; truncate -s 48M $disk
		sgdisk -n1:2048:+8M -t1:ef00 -c1:esp ` + slots + ` $disk >/dev/null; ` + fill + `
		truncate -s 8M esp; mkfs.vfat esp >/dev/null; grub-editenv grubenv create
		grub-editenv grubenv set keep=me ORDER="A B" A_OK=1 A_TRY=0 B_OK=1 B_TRY=0
		mmd -i esp ::/grub; mcopy -i esp grubenv ::/grub/grubenv
		dd if=esp of=$disk bs=1M seek=1 conv=notrunc status=none`)
	sh(`disk=uboot.img; truncate -s 48M $disk
		sgdisk -n1:2048:+1M -c1:env ` + slots + ` $disk >/dev/null; ` + fill + `
		printf 'BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=3\nkeep=me\n' > vars
		mkenvimage -r -s 0x4000 -o env vars
		dd if=env of=$disk bs=1K seek=1024 conv=notrunc status=none
		dd if=env of=$disk bs=1K seek=1040 conv=notrunc status=none`)
}

// ConfigTail is the two slots of every configuration.
const ConfigTail = `
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`

// Configs are the configurations of the disk images, by boot loader.
var Configs = map[string]string{
	"grub": `product = "demo"
keyring = ["keys"]
[disk]
path = "disk.img"
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grub/grubenv"
tries = 1
booted = "A"` + ConfigTail,
	"uboot": `product = "demo"
keyring = ["keys"]
[disk]
path = "disk.img"
[boot]
backend = "uboot"
env = [ { device = "PARTLABEL=env", offset = 0, size = 0x4000 }, { device = "PARTLABEL=env", offset = 0x4000, size = 0x4000 } ]
tries = 3
booted = "A"` + ConfigTail,
}
