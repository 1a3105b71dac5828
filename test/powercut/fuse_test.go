package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"updater/internal/crashdisk"
	"updater/internal/crashdisk/fuse"
)

// The same model behind FUSE and a loop device: the real program, the real page cache, real ioctls.

// bench is a disk with a partition table, and the files that the program needs to install on it.
type bench struct {
	dir     string // with the program, the image, its bmap and signature, the key, the configuration
	disk    []byte
	loader  *loader
	slots   map[string]int64 // offsets
	image   *image
	initial *image // in both slots at first
}

// newBench builds the program and a disk for one boot loader, with slots of so many MiB, with the real tools.
func newBench(t *testing.T, l *loader, slot int64) *bench {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	pool(t) // the key
	b := &bench{dir: t.TempDir(), loader: l}
	sh := func(script string, args ...string) {
		t.Helper()
		cmd := exec.Command("bash", append([]string{"-euc", script, "sh"}, args...)...)
		cmd.Dir = b.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sh(`cd "$1" && go build -o "$2/updater" ./cmd/updater`, root, b.dir)
	rng := rand.New(rand.NewPCG(5, 6))
	for i, img := range []**image{&b.initial, &b.image} {
		data := make([]byte, slot*700<<10+int64(i)*1000)
		for off := 0; off < len(data); off += 4096 {
			if rng.IntN(3) > 0 || off == 0 {
				for j := off; j < min(off+4096, len(data)); j++ {
					data[j] = byte(rng.UintN(255) + 1)
				}
			}
		}
		if *img, err = signedImage(t, filepath.Join(b.dir, "image"), fmt.Sprintf("image %d", i), data, slot*64<<10); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{"image.bmap": b.image.doc, "image.bmap.sig": b.image.sig, "key.asc": images.cert, "state": l.fresh()[0]} {
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh(`truncate -s $((2 * $1 + 3))M disk; sgdisk -a 8 -n1:2048:+1M -t1:ef00 -c1:boot -n2:0:+$1M -c2:rootfs_a -n3:0:+$1M -c3:rootfs_b disk >/dev/null`, fmt.Sprint(slot))
	if l.name == "grub" {
		sh(`truncate -s 1M esp; mkfs.vfat esp >/dev/null; mmd -i esp ::/grub; mcopy -i esp state ::/grub/grubenv; dd if=esp of=disk bs=1M seek=1 conv=notrunc status=none`)
	}
	if b.disk, err = os.ReadFile(filepath.Join(b.dir, "disk")); err != nil {
		t.Fatal(err)
	}
	b.slots = map[string]int64{"A": 2 << 20, "B": (2 + slot) << 20}
	switch l.name {
	case "grub":
		at := bytes.Index(b.disk, []byte("# GRUB Environment Block"))
		if at < 0 || at%512 != 0 {
			t.Fatalf("the environment block is at %d", at)
		}
		l.areas[0].off = int64(at)
	case "uboot":
		for i, a := range l.fresh() {
			l.areas[i].off = 1<<20 + int64(i)*65536
			copy(b.disk[l.areas[i].off:], a)
		}
	}
	for _, off := range b.slots {
		copy(b.disk[off:], bytes.Repeat([]byte{0xa5}, int(slot<<20)))
		copy(b.disk[off:], b.initial.data)
	}
	return b
}

// config is the device's configuration for a node and a keyring.
func (b *bench) config(node, engine, keyring, more string) string {
	state := "backend = \"grub\"\nenv = \"PARTLABEL=boot:/grub/grubenv\""
	if b.loader.name == "uboot" {
		state = fmt.Sprintf("backend = \"uboot\"\n"+`env = [ { device = "PARTLABEL=boot", offset = 0, size = %d }, { device = "PARTLABEL=boot", offset = 65536, size = %d } ]`, ubootSize, ubootSize)
	}
	return deviceConfig(node, engine, keyring, state+"\n"+more)
}

// deviceConfig is a configuration with a [boot] of these keys.
func deviceConfig(node, engine, keyring, boot string) string {
	return fmt.Sprintf(`keyring = [%q]
[disk]
path = %q
engine = %q
[boot]
tries = 1
%s
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`, keyring, node, engine, boot)
}

// install runs the program on the disk behind a loop device, and returns its exit code and output.
func (b *bench) install(t *testing.T, d *crashdisk.Disk, engine string) (code int, said string) {
	t.Helper()
	mount, err := os.MkdirTemp(b.dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	loop, err := fuse.Attach(d, mount)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "config.toml")
	if err := os.WriteFile(path, []byte(b.config(loop.Node, engine, filepath.Join(b.dir, "key.asc"), `booted = "A"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "updater"), "install", "--config", path, filepath.Join(b.dir, "image"))
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if err := loop.Close(); err != nil {
		t.Fatal(err)
	}
	return code, string(out)
}

// check is the invariant on the content of the disk. updated is the slot that must hold the new image and be the choice, "" for
// none.
func (b *bench) check(disk []byte, updated string) error {
	chain := b.loader.chain(disk)
	holds := func(slot string, img *image) bool {
		return bytes.Equal(disk[b.slots[slot]:][:len(img.data)], img.data)
	}
	first := slices.IndexFunc(chain, func(s string) bool { return s != "" })
	if first < 0 {
		return errors.New("the boot loader finds no slot")
	}
	for _, s := range chain[first:] {
		if s != "" && !holds(s, b.image) && !holds(s, b.initial) {
			return fmt.Errorf("the boot loader tries %q; slot %s holds no complete image", chain, s)
		}
	}
	if updated != "" && (chain[0] != updated || !holds(updated, b.image)) {
		return fmt.Errorf("success, but the boot loader chooses %q and slot %s holds the image: %v", chain[0], updated, holds(updated, b.image))
	}
	return nil
}

// run is one install on a disk that fails at an operation, a check of the state that a power cut leaves, and a second
// install on that, which succeeds.
func (b *bench) run(t *testing.T, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0x66757365))
	engine := []string{"paced", "direct", "auto"}[rng.IntN(3)]
	f := crashdisk.Fault{N: 1 + rng.IntN(60), Kind: []crashdisk.Kind{crashdisk.EIO, crashdisk.EIO, crashdisk.FlushKeep, crashdisk.FlushDrop, crashdisk.LostWrite}[rng.IntN(5)]}
	f.Sticky = f.Kind == crashdisk.EIO && rng.IntN(3) > 0 // the power is gone
	d := crashdisk.New(b.disk, crashdisk.Options{Seed: seed})
	d.Inject(f)
	code, said := b.install(t, d, engine)
	fail := func(format string, a ...any) error {
		return fmt.Errorf("%s, seed %d, revision %s, engine %s, %v (happened %d times): %s\n%s\n%v", b.loader.name, seed, revision(), engine, f, d.Fired(), fmt.Sprintf(format, a...), said, d.Trace())
	}
	// A read by the kernel itself, or one that is retried, may fail without harm: then the result must hold.
	if code == 0 && d.Fired() > 0 && f.Sticky {
		return fail("success on a dead drive")
	}
	updated := map[bool]string{true: "B"}[code == 0]
	for n := range uint64(4) {
		if err := b.check(d.Cut(seed*4+n), updated); err != nil {
			return fail("exit %d: %v", code, err)
		}
	}
	again := crashdisk.New(d.Cut(seed), crashdisk.Options{Seed: seed})
	code, said = b.install(t, again, engine)
	if code != 0 {
		return fail("the second install: exit %d", code)
	}
	if err := b.check(again.Medium(), "B"); err != nil {
		return fail("the second install: %v", err)
	}
	return nil
}

// TestFUSE runs the real program on the model behind a loop device.
func TestFUSE(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	start := time.Now()
	var runs atomic.Int64
	for i, l := range []*loader{grubLoader(), ubootLoader()} {
		b := newBench(t, l, 1)
		n := scale("UPDATER_PROOF_FUSE", 50) / 2
		for seed := range n {
			if err := b.run(t, uint64(i*1_000_000+seed+1)); err != nil {
				t.Fatal(err)
			}
			runs.Add(1)
		}
	}
	count(t, "runs of the program on a loop device over FUSE", runs.Load(), start)
}
