//go:build vm

package loaders

import (
	"bytes"
	"errors"
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
	"updater/boot/boottest"
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
	return boottest.OpenFile(out), nil
}

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
	out, err := e.tool("mdir", "::/")
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`([0-9 ]+) bytes free`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("mdir printed no free space: %s", out)
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

// sdbootPrefix is long enough that the name of an entry needs one more place in its folder when the loader counts it down:
// the firmware cannot reuse the place of the old name.
const sdbootPrefix = "acme-gateway-1"

// sdbootRig is a disk with systemd-boot, and the kind of its entries.
type sdbootRig struct{ dir, disk, entryDir, ext string }

// payload makes EFI programs A.efi and B.efi that print their name and switch the machine off.
const payload = `for s in A B; do
	printf 'echo "CHOICE %s."\nhalt\n' $s >p.cfg
	grub-mkimage -O x86_64-efi -p / -c p.cfg -o $s.efi echo halt normal
done
`

// unify makes unified kernel images of them: the sections that the loader reads follow those of the program.
const unify = `printf 'ID=demo\nNAME="a demo"\n' >osrel
for s in A B; do
	printf 'updater.slot=%s' $s >cmdline
	objcopy --add-section .osrel=osrel --change-section-vma .osrel=0x200000 --add-section .cmdline=cmdline --change-section-vma .cmdline=0x201000 $s.efi
done
`

// newSdboot makes a disk on which B has generation 8 and A generation 9.
func newSdboot(t *testing.T) *sdbootRig {
	t.Helper()
	r := &sdbootRig{entryDir: "loader/entries/", ext: ".conf"}
	r.make(t, payload, "mcopy -i esp A.efi B.efi ::/; mcopy -i esp A.conf B.conf ::/loader/updater/; mcopy -i esp "+sdbootPrefix+"-*.conf ::/loader/entries/")
	return r
}

// newSdbootImages is the same with unified kernel images.
func newSdbootImages(t *testing.T) *sdbootRig {
	t.Helper()
	need(t, "objcopy")
	r := &sdbootRig{entryDir: "EFI/Linux/", ext: ".efi"}
	r.make(t, payload+unify, "mcopy -i esp A.efi B.efi ::/EFI/updater/; mcopy -i esp A.efi ::/EFI/Linux/"+sdbootPrefix+"-9-A.efi; mcopy -i esp B.efi ::/EFI/Linux/"+sdbootPrefix+"-8-B.efi")
	return r
}

func (r *sdbootRig) make(t *testing.T, programs, fill string) {
	t.Helper()
	need(t, qemu, ovmfCode, sdbootLoader, "grub-mkimage", "mcopy", "mkfs.vfat", "sgdisk")
	r.dir = t.TempDir()
	r.disk = filepath.Join(r.dir, "disk.img")
	for i, s := range []string{"B", "A"} { // the templates as they are shipped, with the payload as kernel
		text := strings.ReplaceAll(example(t, "systemd-boot/"+s+".conf"), "/"+s+"/vmlinuz", "/"+s+".efi")
		text = strings.ReplaceAll(text, "initrd", "# initrd")
		must(t, os.WriteFile(filepath.Join(r.dir, s+".conf"), []byte(text), 0o600))
		text += fmt.Sprintf("sort-key %s\nversion %d\n", sdbootPrefix, i+8)
		must(t, os.WriteFile(filepath.Join(r.dir, fmt.Sprintf("%s-%d-%s.conf", sdbootPrefix, i+8, s)), []byte(text), 0o600))
	}
	must(t, os.WriteFile(filepath.Join(r.dir, "loader.conf"), []byte(example(t, "systemd-boot/loader.conf")), 0o600))
	sh(t, r.dir, programs+`truncate -s 45M disk.img; sgdisk -n1:2048:+43M -t1:ef00 -c1:esp disk.img >/dev/null
		truncate -s 43M esp; mkfs.vfat -F 32 esp >/dev/null
		mmd -i esp ::/EFI ::/EFI/BOOT ::/EFI/Linux ::/EFI/updater ::/loader ::/loader/entries ::/loader/updater
		mcopy -i esp `+sdbootLoader+` ::/EFI/BOOT/BOOTX64.EFI; mcopy -i esp loader.conf ::/loader/
		`+fill+`
		dd if=esp of=disk.img bs=1M seek=1 conv=notrunc status=none`)
}

func (r *sdbootRig) backend(t *testing.T, booted string) boot.Backend {
	t.Helper()
	b, err := sdboot.New(sdboot.Options{Dir: esp{t, r.disk}, Slots: []string{"A", "B"}, Prefix: sdbootPrefix}, booted)
	must(t, err)
	return b
}

func (r *sdbootRig) boot(t *testing.T, want string, disk ...string) {
	t.Helper()
	if got := boots(t, `CHOICE (\w*)\.`, append(efiArgs(t, filepath.Join(r.dir, "vars.fd")), disk...)...); got[1] != want {
		t.Errorf("systemd-boot chose %q; want %s", got[1], want)
	}
}

// entries expects these entries, such as 10-B+0-2, on the ESP.
func (r *sdbootRig) entries(t *testing.T, want ...string) {
	t.Helper()
	names, err := esp{t, r.disk}.List()
	must(t, err)
	var got []string
	for _, n := range names {
		if n, ok := strings.CutPrefix(n, r.entryDir); ok && strings.HasPrefix(n, sdbootPrefix) {
			got = append(got, n)
		}
	}
	for i, w := range want {
		want[i] = sdbootPrefix + "-" + w + r.ext
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the entries are %q; want %q", got, want)
	}
}

func TestSystemdBoot(t *testing.T) { newSdboot(t).life(t) }

// TestSystemdBootImages is the same with unified kernel images. A version inside the images decides the order; State reports
// that and Activate refuses.
func TestSystemdBootImages(t *testing.T) {
	r := newSdbootImages(t)
	r.life(t)
	sh(t, r.dir, `printf 'ID=demo\nVERSION_ID=7\n' >osrel; objcopy --update-section .osrel=osrel A.efi
		mcopy -o -i disk.img@@1M A.efi ::/EFI/Linux/`+sdbootPrefix+`-9-A.efi`)
	check(t, r.backend(t, "B"), "with a version in A", "A A A")
	r.boot(t, "A", disk(r.disk)...)
	if err := r.backend(t, "A").Activate(t.Context(), "B", 2); !errors.Is(err, boot.ErrState) {
		t.Errorf("Activate beside another version = %v; want ErrState", err)
	}
}

// life tests boot counting down to the fallback, and mark-good; after every sector that the firmware's FAT driver writes
// for a counted boot, a slot boots. Generation 10 sorts after 9.
func (r *sdbootRig) life(t *testing.T) {
	r.boot(t, "A", disk(r.disk)...)
	must(t, r.backend(t, "A").Invalidate(t.Context(), "B"))
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	check(t, r.backend(t, "A"), "activated", "B B A")
	r.entries(t, "9-A", "10-B+2")
	// The folder's first clusters are full, so that the firmware ends the old name in one sector and makes the new one in another.
	sh(t, r.dir, `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo x >pad+$i.txt; done; mcopy -i disk.img@@1M pad* ::/`+r.entryDir)
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
			names, _ := esp{t, r.disk}.List()
			t.Fatalf("cut after sector %d of the loader's renaming: %+v, %v (%v)", n, st, err, names)
		}
		seen[st.Next]++
	})
	t.Logf("the firmware wrote %d sectors; in the states after a cut boots %v", n, seen)
	if n == 0 {
		t.Error("the loader has not counted")
	}
	copyFile(t, after, r.disk)
	r.boot(t, "B", disk(r.disk)...)
	r.entries(t, "9-A", "10-B+0-2")
	check(t, r.backend(t, "A"), "counted down", "A A A")
	r.boot(t, "A", disk(r.disk)...)
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.boot(t, "B", disk(r.disk)...)
	must(t, r.backend(t, "B").MarkGood(t.Context(), "B"))
	check(t, r.backend(t, "B"), "marked good", "B B B")
	r.boot(t, "B", disk(r.disk)...)
	r.entries(t, "9-A", "11-B")
}
