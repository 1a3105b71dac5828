package abdisk

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"strings"
)

// Kind is the kind of system in a slot image.
type Kind string

// The kinds of slot images. All carry Debian's kernel, a small initramfs of their own and our binary, and mount their root read-only.
const (
	Debian Kind = "debian" // Debian bookworm with systemd: a unit runs `updater mark good`; systemd takes the watchdog over
	Small  Kind = "small"  // busybox and our binary: the same lines on the console in a fraction of the time
	Hang   Kind = "hang"   // the kernel boots, then PID 1 sleeps for ever without feeding the watchdog
	Bare   Kind = "bare"   // the content of Base, and nothing of the demo: Files, Scripts and Setup make a system of it
)

// SlotConfig describes one slot image.
type SlotConfig struct {
	Kind    Kind
	Version string            // shown as "DEMO slot=B version=VERSION up"
	App     bool              // the slot has a second role, app, made by Builder.App: its version is shown as well, "... app=VERSION up"
	SizeMiB int64             // 0 means 512 for Debian, 64 else; sparse
	Files   map[string]string // further files by path, below the root; optional
	Scripts map[string]string // the same, for programs
	Base    string            // of Bare: a tar archive of the root, as Builder.Root makes it
	Setup   string            // a script for the root's own /bin/sh, which runs in it at the end; optional
}

//go:embed files/init.initramfs
var initInitramfs string

//go:embed files/init.small
var initSmall string

//go:embed files/init.hang
var initHang string

//go:embed files/mark-good
var markGood string

//go:embed files/act
var act string

// Config is the /etc/updater/config.toml of the demo device, for the slots and for the recovery initramfs.
//
//go:embed files/config.toml
var Config string

// AppConfig is Config for slots of two roles, rootfs and app, and with the state store that these need.
//
//go:embed files/config-app.toml
var AppConfig string

// Slot builds a slot's file system image (ext4, raw, sparse) and returns its path. The guest prints the same lines in the same order for
// Debian and Small: the output of `updater mark good` and `updater status`, "DEMO mark-good exit=0", then "DEMO slot=B version=2 up". With
// demo.act=reboot (or poweroff) on the kernel command line it then reboots (or powers off). Hang prints "DEMO slot=A version=3 hangs".
func (b *Builder) Slot(ctx context.Context, c SlotConfig) (string, error) {
	if c.SizeMiB == 0 {
		c.SizeMiB = 64
		if c.Kind == Debian {
			c.SizeMiB = 512
		}
	}
	t, err := b.slotTree(ctx, c)
	if err != nil {
		return "", fmt.Errorf("slot %s %s: %w", c.Kind, c.Version, err)
	}
	base := c.Base
	if c.Kind == Debian {
		if base, err = b.DebianRoot(ctx); err != nil {
			return "", err
		}
	}
	var content bytes.Buffer
	if err := t.writeTar(&content); err != nil {
		return "", err
	}
	name := fmt.Sprintf("slot-%s-%s", c.Kind, c.Version)
	if c.App {
		name += "-app"
	}
	image := b.path(name + ".img")
	build := func() error { return b.makeExt4(ctx, image, c.SizeMiB, c.Setup, base, t) }
	return image, b.cached(image, build, content.String(), base, fmt.Sprint(c.SizeMiB), makeExt4, c.Setup)
}

// App builds the image of a slot's second role (ext4, raw) and returns its path: 12 MiB of noise, which depends on the version.
func (b *Builder) App(ctx context.Context, version string) (string, error) {
	var seed [32]byte
	copy(seed[:], version)
	noise := make([]byte, 12<<20)
	if _, err := rand.NewChaCha8(seed).Read(noise); err != nil {
		return "", err
	}
	t := tree{}
	t.file("version", version+"\n")
	t.bytes("noise", noise)
	image := b.path("app-" + version + ".img")
	return image, b.cached(image, func() error { return b.makeExt4(ctx, image, appMiB, "", "", t) }, version, fmt.Sprint(len(noise)), makeExt4)
}

// makeExt4 is the script that turns tar archives into an image. No journal: the slot is mounted read-only. GRUB 2.06 reads neither
// metadata_csum_seed nor orphan_file. mke2fs 1.47.0 copies the host's ctime and atime into the image; debugfs makes them the same every time.
const makeExt4 = `
image=$1 size=$2 setup=$3; shift 3
rm -rf root.tmp; mkdir root.tmp
for tar in "$@"; do tar -x --numeric-owner --keep-directory-symlink -C root.tmp -f "$tar"; done
[ -z "$setup" ] || chroot root.tmp /bin/sh -euc "$setup"
find root.tmp -newermt "@$EPOCH" -exec touch -h -d "@$EPOCH" {} +
rm -f "$image.tmp"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed,^orphan_file -m 0 -b 4096 -L slot \
	-U 5b2c6a34-0d6f-4a53-9f0e-6d7c1c4f0a11 -E hash_seed=5b2c6a34-0d6f-4a53-9f0e-6d7c1c4f0a12,root_owner=0:0 -d root.tmp "$image.tmp" "${size}M"
find root.tmp -printf 'sif "/%P" ctime @'$EPOCH'\nsif "/%P" ctime_extra 0\nsif "/%P" atime @'$EPOCH'\nsif "/%P" atime_extra 0\n' >root.times
debugfs -w -f root.times "$image.tmp" >/dev/null 2>&1
rm -rf root.tmp root.times
mv "$image.tmp" "$image"
`

func (b *Builder) makeExt4(ctx context.Context, image string, sizeMiB int64, setup, base string, t tree) error {
	overlay := image + ".tar"
	if err := t.save(overlay, tree.writeTar); err != nil {
		return err
	}
	args := []string{image, fmt.Sprint(sizeMiB), setup}
	if base != "" {
		args = append(args, base)
	}
	defer os.Remove(overlay)
	return b.asRoot(ctx, makeExt4, append(args, overlay)...)
}

// slotTree collects the files that go into (or, for Debian, over) a slot's root.
func (b *Builder) slotTree(ctx context.Context, c SlotConfig) (tree, error) {
	k, err := b.Kernel(ctx)
	if err != nil {
		return nil, err
	}
	key, err := b.Keys(ctx)
	if err != nil {
		return nil, err
	}
	t := tree{}
	t.file("etc/demo-version", c.Version+"\n")
	t.file("etc/updater/config.toml", Config)
	if c.App {
		t.file("etc/updater/config.toml", AppConfig)
		t.dir("app")
	}
	if err := t.hostFile("etc/updater/keys/release.asc", key); err != nil {
		return nil, err
	}
	if err := t.program("usr/bin/updater", b.Updater); err != nil {
		return nil, err
	}
	if err := t.hostFile("boot/vmlinuz", k.Image); err != nil {
		return nil, err
	}
	initrd, err := k.Initrd()
	if err != nil {
		return nil, err
	}
	t.bytes("boot/initrd.img", initrd)
	scratch := b.path("modules.tmp")
	defer os.RemoveAll(scratch)
	if err := k.addModules(ctx, t, scratch); err != nil {
		return nil, err
	}
	if c.Kind != Bare {
		t.script("usr/lib/demo/mark-good", markGood)
		t.script("usr/lib/demo/act", act)
	}
	switch c.Kind {
	case Bare:
	case Debian:
		addUnits(t)
	case Small, Hang:
		if err := addSmall(t, c.Kind); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("no such kind of slot")
	}
	for name, body := range c.Files {
		t.file(strings.TrimPrefix(path.Clean(name), "/"), body)
	}
	for name, body := range c.Scripts {
		t.script(strings.TrimPrefix(path.Clean(name), "/"), body)
	}
	return t, nil
}

func addSmall(t tree, kind Kind) error {
	if err := t.program("usr/bin/busybox", busybox); err != nil {
		return err
	}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "var"} {
		t.dir(d)
	}
	t.symlink("bin", "usr/bin")
	t.symlink("sbin", "usr/bin")
	t.symlink("lib", "usr/lib")
	t.symlink("usr/bin/sh", "busybox")
	t.script("usr/bin/init", map[Kind]string{Small: initSmall, Hang: initHang}[kind])
	return nil
}

// Initrd builds the slot's own initramfs: busybox, the disk's drivers and a script that mounts root=PARTLABEL=... read-only.
func (k Kernel) Initrd() ([]byte, error) {
	t := tree{}
	for _, d := range []string{"dev", "proc", "sys", "root"} {
		t.dir(d)
	}
	if err := t.program("bin/busybox", busybox); err != nil {
		return nil, err
	}
	modules, err := k.closure([]string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"})
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, m := range modules {
		if err := t.hostFile("m/"+path.Base(m), path.Join(k.ModulesDir(), m)); err != nil {
			return nil, err
		}
		fmt.Fprintln(&list, path.Base(m))
	}
	t.file("modules", list.String())
	t.script("init", initInitramfs)
	var b bytes.Buffer
	err = t.writeCPIO(&b)
	return b.Bytes(), err
}

// addModules puts the slot's kernel modules into t, with the indexes that depmod makes for just these. tmp is a scratch folder.
func (k Kernel) addModules(ctx context.Context, t tree, tmp string) error {
	modules, err := k.closure(slotModules)
	if err != nil {
		return err
	}
	scratch := tree{}
	for _, m := range append(modules, "modules.builtin", "modules.order", "modules.builtin.modinfo") {
		name := path.Join("lib/modules", k.Version, m)
		if err := scratch.hostFile(name, path.Join(k.ModulesDir(), m)); err != nil {
			return err
		}
		t["usr/"+name] = scratch[name]
	}
	if err := scratch.unpack(ctx, tmp); err != nil {
		return err
	}
	if _, err := (command{}).run(ctx, "depmod", "-b", tmp, k.Version); err != nil {
		return err
	}
	return t.copyDir("usr/lib/modules/"+k.Version, path.Join(tmp, "lib/modules", k.Version))
}

// unpack writes the tree to a fresh folder of the host.
func (t tree) unpack(ctx context.Context, dir string) error {
	if err := emptyDir(dir); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.writeTar(&b); err != nil {
		return err
	}
	_, err := command{stdin: b.String()}.run(ctx, "tar", "-x", "--no-same-owner", "-C", dir)
	return err
}
