//go:build vm

package bootlab

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/sdboot"
)

const sdbootLoader = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

// esp is an ESP inside a disk image, through mtools. There is no cache to sync.
type esp struct {
	t    *testing.T
	disk string
}

func (e esp) tool(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, append([]string{"-i", e.disk + "@@1M"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w: %s", name, args, err, errs.String())
	}
	return out, nil
}

// List implements [sdboot.Dir].
func (e esp) List() ([]string, error) {
	var names []string
	for _, dir := range []string{"loader", "loader/entries", "loader/updater", "EFI/Linux", "EFI/updater"} {
		out, err := e.tool("mdir", "-b", "::/"+dir)
		if err != nil {
			continue // an empty folder
		}
		for line := range strings.Lines(string(out)) {
			if name := strings.TrimPrefix(strings.TrimSpace(line), "::/"); !strings.HasSuffix(name, "/") {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// Open implements [sdboot.Dir].
func (e esp) Open(name string) (sdboot.File, error) {
	out, err := e.tool("mtype", "::/"+name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return openFile{bytes.NewReader(out)}, nil
}

type openFile struct{ *bytes.Reader }

func (openFile) Close() error { return nil }

// Write implements [sdboot.Dir].
func (e esp) Write(name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(e.t.TempDir(), "file")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	_, err = e.tool("mcopy", "-o", tmp, "::/"+name)
	return err
}

// Free implements [sdboot.Dir].
func (e esp) Free() (int64, error) {
	out, err := e.tool("mdir", "-f", "::/")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`([0-9 ]+) bytes free`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("mdir says no free space: %s", out)
	}
	return strconv.ParseInt(strings.ReplaceAll(string(m[1]), " ", ""), 10, 64)
}

// Rename implements [sdboot.Dir].
func (e esp) Rename(from, to string) error {
	_, err := e.tool("mren", "::/"+from, "::/"+to)
	return err
}

// Remove implements [sdboot.Dir].
func (e esp) Remove(name string) error {
	_, err := e.tool("mdel", "::/"+name)
	return err
}

// Sync implements [sdboot.Dir].
func (e esp) Sync() error { return nil }

type sdbootRig struct{ dir, disk string }

// payload makes EFI programs A.efi and B.efi that say their name and switch the machine off.
const payload = `for s in A B; do
	printf 'echo "CHOICE %s."\nhalt\n' $s >p.cfg
	grub-mkimage -O x86_64-efi -p / -c p.cfg -o $s.efi echo halt normal
done
`

func newSdboot(t *testing.T) *sdbootRig {
	t.Helper()
	need(t, qemu, ovmfCode, sdbootLoader, "grub-mkimage", "mcopy", "mkfs.vfat", "sgdisk")
	r := &sdbootRig{dir: t.TempDir()}
	r.disk = filepath.Join(r.dir, "disk.img")
	for i, s := range []string{"B", "A"} { // the templates as they are shipped, with the payload as kernel
		text := strings.ReplaceAll(example(t, "systemd-boot/"+s+".conf"), "/"+s+"/vmlinuz", "/"+s+".efi")
		text = strings.ReplaceAll(text, "initrd", "# initrd")
		must(t, os.WriteFile(filepath.Join(r.dir, s+".conf"), []byte(text), 0o600))
		text += fmt.Sprintf("sort-key updater\nversion %d\n", i+1)
		must(t, os.WriteFile(filepath.Join(r.dir, fmt.Sprintf("updater-%d-%s.conf", i+1, s)), []byte(text), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(r.dir, "loader.conf"), []byte(example(t, "systemd-boot/loader.conf")), 0o600))
	sh(t, r.dir, payload+`truncate -s 45M disk.img; sgdisk -n1:2048:+43M -t1:ef00 -c1:esp disk.img >/dev/null
		truncate -s 43M esp; mkfs.vfat -F 32 esp >/dev/null
		mmd -i esp ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries ::/loader/updater
		mcopy -i esp `+sdbootLoader+` ::/EFI/BOOT/BOOTX64.EFI; mcopy -i esp A.efi B.efi ::/
		mcopy -i esp loader.conf ::/loader/; mcopy -i esp A.conf B.conf ::/loader/updater/; mcopy -i esp updater-*.conf ::/loader/entries/
		dd if=esp of=disk.img bs=1M seek=1 conv=notrunc status=none`)
	return r
}

func (r *sdbootRig) backend(t *testing.T, booted string) boot.Backend {
	t.Helper()
	b, err := sdboot.New(sdboot.Options{Dir: esp{t, r.disk}, Slots: []string{"A", "B"}}, booted)
	must(t, err)
	return b
}

func (r *sdbootRig) boot(t *testing.T, want string, disk ...string) {
	t.Helper()
	if got := boots(t, `CHOICE (\w*)\.`, append(efiArgs(t, filepath.Join(r.dir, "vars.fd")), disk...)...); got[1] != want {
		t.Errorf("systemd-boot chose %q; want %s", got[1], want)
	}
}

func (r *sdbootRig) entries(t *testing.T) []string {
	t.Helper()
	names, err := esp{t, r.disk}.List()
	must(t, err)
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, "loader/entries/") })
	slices.Sort(names)
	return names
}

// Boot counting down to the fallback, and mark-good; after every sector that the firmware's FAT driver writes
// for a counted boot, somebody boots.
func TestSystemdBoot(t *testing.T) {
	r := newSdboot(t)
	r.boot(t, "A", disk(r.disk)...)
	must(t, r.backend(t, "A").Invalidate(t.Context(), "B"))
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	check(t, r.backend(t, "A"), "activated", "B B A")
	base, log := r.disk+".base", newLog(t, filepath.Join(r.dir, "log"))
	copyFile(t, r.disk, base)
	r.boot(t, "B", recorded("virtio-blk-pci", r.disk, log)...)
	after := r.disk + ".after"
	copyFile(t, r.disk, after)
	copyFile(t, base, r.disk)
	seen := map[string]int{}
	n := replay(t, r.disk, log, func(n int) {
		st, err := r.backend(t, "").State(t.Context())
		if err != nil || st.Next != "A" && st.Next != "B" || !st.Slots[0].Good {
			t.Fatalf("cut after sector %d of the loader's renaming: %+v, %v (%v)", n, st, err, r.entries(t))
		}
		seen[st.Next]++
	})
	t.Logf("the firmware wrote %d sectors; after a cut boots %v", n, seen)
	if n == 0 {
		t.Error("the loader has not counted")
	}
	copyFile(t, after, r.disk)
	r.boot(t, "B", disk(r.disk)...)
	if got, want := r.entries(t), []string{"loader/entries/updater-2-A.conf", "loader/entries/updater-3-B+0-2.conf"}; !slices.Equal(got, want) {
		t.Errorf("the entries are %q; want %q", got, want)
	}
	check(t, r.backend(t, "A"), "counted down", "A A A")
	r.boot(t, "A", disk(r.disk)...)
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.boot(t, "B", disk(r.disk)...)
	must(t, r.backend(t, "B").MarkGood(t.Context(), "B"))
	check(t, r.backend(t, "B"), "marked good", "B B B")
	r.boot(t, "B", disk(r.disk)...)
	if got, want := r.entries(t), []string{"loader/entries/updater-2-A.conf", "loader/entries/updater-4-B.conf"}; !slices.Equal(got, want) {
		t.Errorf("the entries are %q; want %q", got, want)
	}
}
