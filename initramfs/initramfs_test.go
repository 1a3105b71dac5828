package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseCmdline(t *testing.T) {
	for _, c := range []struct {
		cmdline string
		want    Params
	}{
		{"", Params{OnDone: "reboot"}},
		{"console=ttyS0 updater.on_done=poweroff quiet", Params{OnDone: "poweroff"}},
		{"updater.on_done=halt updater.mode=install updater.slot=A", Params{OnDone: "halt", Mode: ModeInstall}},
		{"updater.mode=status updater.mode=recover updater.url=https://x/a.zst", Params{OnDone: "reboot", Mode: ModeRecover, URL: "https://x/a.zst"}},
		{"ip=dhcp ip=10.0.0.2::10.0.0.1:255.0.0.0 nameserver=10.0.0.3", Params{
			OnDone: "reboot", IP: []string{"dhcp", "10.0.0.2::10.0.0.1:255.0.0.0"}, Nameservers: []string{"10.0.0.3"},
		}},
		// Nothing that is trusted can be chosen here: such words are reported and do nothing.
		{"updater.on_done=shell updater.key=0123 updater.keyring=/evil updater.insecure updater.mode=shell updater.url=file:///evil", Params{
			OnDone: "reboot",
			Unknown: []string{`"updater.on_done=shell"`, `"updater.key=0123"`, `"updater.keyring=/evil"`, `"updater.insecure"`,
				`"updater.mode=shell"`, `"updater.url=file:///evil"`},
		}},
	} {
		if diff := cmp.Diff(c.want, ParseCmdline(c.cmdline)); diff != "" {
			t.Errorf("ParseCmdline(%q) (-want +got):\n%s", c.cmdline, diff)
		}
	}
}

// A medium's folder holds one bmap and its image; all else is refused with a list of the files.
func TestPick(t *testing.T) {
	for _, c := range []struct {
		name, files, image, sig, want string
		labelled                      bool
	}{
		{name: "the root directory of a labelled medium", files: "../a.bmap ../a.zst", image: "a.zst", labelled: true},
		{name: "the folder goes first", files: "../b.bmap ../b a.bmap a", image: "a", labelled: true},
		{name: "a labelled medium without an update", files: "../readme.txt", want: "root directory holds 0 bmaps", labelled: true},
		{name: "plain", files: "a.bmap a a.bmap.asc", image: "a", sig: "a.bmap.asc"},
		{name: "compressed", files: "image.bmap image.zst image.bmap.sig readme.txt", image: "image.zst", sig: "image.bmap.sig"},
		{name: "clearsigned", files: "a.img.bmap a.img.xz", image: "a.img.xz"},
		{name: "img left out", files: "a.bmap a.img.gz", image: "a.img.gz"},
		{name: "a release", files: "release.toml release.toml.asc a.bmap b.bmap a b", image: "release.toml"},
		{name: "no bmap", files: "a", want: "0 bmaps"},
		{name: "two bmaps", files: "a.bmap b.bmap a b", want: "2 bmaps [\"a.bmap\" \"b.bmap\"]"},
		{name: "no image", files: "a.bmap b.zst", want: "no image for it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for f := range strings.FieldsSeq(c.files) {
				name := filepath.Join(root, "updater", f)
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			u, err := pick(root, c.labelled)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("pick = %+v, %v; want %q", u, err, c.want)
				}
				return
			}
			if err != nil || filepath.Base(u.Image) != c.image || c.sig != "" && filepath.Base(u.Signature) != c.sig || c.sig == "" && u.Signature != "" {
				t.Fatalf("pick = %+v, %v; want %s, %s", u, err, c.image, c.sig)
			}
		})
	}
	if u, err := pick(t.TempDir(), false); u != nil || err != nil {
		t.Errorf("pick of a medium without the folder = %v, %v; want nil, nil", u, err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "updater")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.bmap"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if u, err := pick(root, false); err == nil {
		t.Errorf("a symbolic link was taken as image: %+v", u)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "a.bmap.asc"), 0o600); err != nil {
		t.Skip(err)
	}
	if u, err := pick(root, false); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO beside the bmap: %+v, %v", u, err)
	}
}

func TestLoader(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	root := t.TempDir()
	discard := func(string, ...any) {}
	l, err := NewLoader(root, discard)
	if err != nil {
		t.Fatalf("without modules: %v", err)
	}
	if err := l.Load("ext4"); err != nil {
		t.Errorf("Load of what is not packed = %v; want nil, as for what is built in", err)
	}
	write := func(release, name, text string) {
		t.Helper()
		dir := filepath.Join(root, "lib/modules", release)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("0.0.1-other", "modules.dep", "")
	if _, err := NewLoader(root, discard); err == nil || !strings.Contains(err.Error(), "kernel 0.0.1-other, but "+release) {
		t.Errorf("modules of another kernel: %v", err)
	}
	write(release, "modules.dep", "kernel/virtio-blk.ko: kernel/virtio.ko\nkernel/virtio.ko: \n")
	write(release, "modules.alias", "# comment\nalias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\n")
	write(release, "modules.softdep", "softdep ext4 pre: crypto-crc32c\nsoftdep a post: b pre: c d\n")
	if l, err = NewLoader(root, discard); err != nil {
		t.Fatal(err)
	}
	if got := l.soft["a"]; !slices.Equal(got.pre, []string{"c", "d"}) || !slices.Equal(got.post, []string{"b"}) {
		t.Errorf("soft dependencies of a = %+v", got)
	}
	// The files are not there: the error says which one would have been loaded first.
	if err := l.Load("virtio:d00000002v00001AF4"); err == nil || !strings.Contains(err.Error(), "kernel/virtio.ko") {
		t.Errorf("Load by modalias = %v; want the dependency first", err)
	}
	_ = l.Load("pci:v00008086d0000")
	if got := l.Unmatched(); !slices.Equal(got, []string{"pci:v00008086d0000"}) {
		t.Errorf("Unmatched() = %v", got)
	}
}

func TestFnmatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"virtio:d00000002v*", "virtio:d00000002v00001AF4", true},
		{"virtio:d00000002v*", "virtio:d00000001v00001AF4", false},
		{"dmi:*:svnACME/West*:*", "dmi:bvn1/2:svnACME/West 3/4:pn5", true}, // path.Match does not match
		{"pci:v0000808[67]d*", "pci:v00008087d1", true},
		{"a?c", "a/c", true},
		{"[", "[", false},
	} {
		if got := fnmatch(c.pattern, c.s); got != c.want {
			t.Errorf("fnmatch(%q, %q) = %v; want %v", c.pattern, c.s, got, c.want)
		}
	}
}

// TestHostileNames: file names of a medium act on no console, begin no line and do not reach the kernel log unchanged.
func TestHostileNames(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "updater")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"\x1b[2J\x1b[Ha.bmap", "b\nupdater: done, slot B boots next\n.bmap", "\u009b2J\u202ec.bmap"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pick(root, false)
	if err == nil {
		t.Fatal("pick takes three bmaps")
	}
	kmsg, err2 := os.Create(filepath.Join(root, "kmsg"))
	if err2 != nil {
		t.Fatal(err2)
	}
	defer kmsg.Close()
	var console bytes.Buffer
	l := &KernelLog{console: &console, kmsg: kmsg}
	fmt.Fprintf(l, "updater: error: update medium /dev/sda1: %v\n", err)
	fmt.Fprintf(l, "updater: label \x1b]0;owned\x07\u202e\u2028\r\x00\n")
	logged, err := os.ReadFile(kmsg.Name())
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"the console": console.String(), "the kernel log": string(logged)} {
		bad := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
		if strings.ContainsFunc(text, bad) || strings.Contains(text, "\nupdater: done") || !strings.Contains(text, "3 bmaps") {
			t.Errorf("%s gets %q", where, text)
		}
	}
	m := &menu{title: "install from"}
	m.add("/dev/sda1, \x1b[2J\nx", nil)
	var screen bytes.Buffer
	m.print(&screen)
	if want := "updater: install from: type a number, then Enter\n  1  /dev/sda1, ?[2J; x\n"; screen.String() != want {
		t.Errorf("the menu is %q; want %q", screen.String(), want)
	}
}
