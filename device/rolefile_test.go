package device_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/internal/rig"
	"updater/update"
)

// fileRig is a rig whose slots have a file beside their partition.
func fileRig(t *testing.T, boot, file string) *rig.Rig {
	t.Helper()
	r := rig.New(t)
	r.Sh("mkdir esp")
	fileConfig(r, boot, file)
	return r
}

// fileConfig configures a boot loader and the file of each slot; DIR is the folder of the rig.
func fileConfig(r *rig.Rig, boot, file string) {
	r.Helper()
	text := "product = \"demo\"\nkeyring = [\"keys\"]\nstate = \"PARTLABEL=state\"\n[disk]\npath = \"disk.img\"\n[boot]\n" + boot + "\n"
	for _, s := range []string{"a", "b"} {
		text += "[[slot]]\nname = \"" + strings.ToUpper(s) + "\"\npartitions = { rootfs = \"PARTLABEL=rootfs_" + s + "\" }\nfiles = { uki = \"" + file + "\" }\n"
	}
	r.Write("config.toml", []byte(strings.ReplaceAll(text, "DIR", r.Dir)))
}

const grubBoot = "backend = \"grub\"\nenv = \"PARTLABEL=esp:/grub/grubenv\"\ntries = 1\nbooted = \"A\""

// A file role must not be a file of the boot loader, the other slot or the state store, in any letter case.
func TestPlacesOfOthers(t *testing.T) {
	r := fileRig(t, "", "")
	r.Sh(`mkdir -p esp/grub esp/EFI/updater esp/loader/entries
		for e in grubenv grubenv-B; do grub-editenv esp/grub/$e create; grub-editenv esp/grub/$e set ORDER="A B" A_OK=1 A_TRY=0 B_OK=1 B_TRY=0; done`)
	const sdboot = "backend = \"systemd-boot\"\nesp = \"DIR/esp\"\nbooted = \"A\""
	for _, c := range []struct {
		boot, file string
		free       bool
	}{
		{sdboot, "DIR/esp:/EFI/updater/{slot}.efi", true},
		{sdboot, "DIR/esp:/loader/updater/{slot}.conf", true},
		{sdboot, "DIR/esp:/slots/{slot}/vmlinuz", true},
		{sdboot, "DIR/esp:/EFI/Linux/updater-9-{slot}.efi", false},
		{sdboot, "DIR/esp:/efi/LINUX/{slot}.efi", false},
		{sdboot, "DIR:/esp/EFI/Linux/{slot}.efi", false},
		{sdboot, "DIR/esp:/loader/entries/{slot}.conf", false},
		{sdboot, "DIR/esp:/EFI/BOOT/{slot}.efi", false},
		{"backend = \"grub\"\nenv = \"DIR/esp/grub/grubenv-B\"\nbooted = \"A\"", "DIR/esp:/grub/GRUBENV-{slot}", false},
		{"backend = \"grub\"\nenv = \"DIR/esp/grub/grubenv\"\nbooted = \"A\"", "DIR/esp:/grub/kernel-{slot}", true},
	} {
		fileConfig(r, c.boot, c.file)
		d, err := device.Open(load(t, r), device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.SlotSize("B", "uki")
		if _, refused := errors.AsType[*config.RequestError](err); refused == c.free || c.free && err != nil {
			t.Errorf("%s with %s: %v; want it free: %v", c.file, c.boot, err, c.free)
		}
		d.Close()
	}
}

// The template of another slot is not a slot's own, by an explicit name.
func TestTemplateOfAnotherSlot(t *testing.T) {
	r := fileRig(t, "backend = \"systemd-boot\"\nesp = \"DIR/esp\"\nbooted = \"A\"", "DIR/esp:/EFI/updater/{slot}.efi")
	text := string(r.Read("config.toml"))
	i := strings.LastIndex(text, "{slot}")
	r.Write("config.toml", []byte(strings.Replace(text[:i], "{slot}", "kept-{slot}", 1)+"a.efi"+text[i+len("{slot}.efi"):]))
	d, err := device.Open(load(t, r), device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.SlotSize("B", "uki"); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("slot B writes the template of slot A: %v", err)
	}
}

// target opens a file role of slot B.
func target(t *testing.T, r *rig.Rig) (*device.Device, update.FileTarget) {
	t.Helper()
	d := open(t, r, device.Install)
	f, err := d.OpenSlot("B", "uki")
	if err != nil {
		t.Fatal(err)
	}
	return d, f.(update.FileTarget)
}

// A file under the fixed name is reused, unless it is a link; nothing but the file changes, and it gets its name last.
func TestFileTarget(t *testing.T) {
	r := fileRig(t, grubBoot, "DIR/esp:/EFI/{slot}.efi")
	old := bytes.Repeat([]byte("old"), 5000)
	for _, before := range []string{
		"rm -rf esp/EFI",
		"echo half >esp/EFI/B.efi.new",
		"head -c 100000 image.img >esp/EFI/B.efi.new",
		"ln esp/EFI/A.efi esp/EFI/B.efi.new",
		"ln -s A.efi esp/EFI/B.efi.new",
	} {
		r.Sh("rm -f esp/EFI/B.efi.new; " + before + "; mkdir -p esp/EFI")
		r.Write("esp/EFI/A.efi", old)
		r.Sh("ln -f esp/EFI/A.efi esp/EFI/kept")
		d, f := target(t, r)
		data := r.Read("image.img")[:54321]
		err := f.Reserve(int64(len(data)))
		if err == nil {
			_, err = f.WriteAt(data, 0)
		}
		if err = errors.Join(err, f.Flush()); err != nil {
			t.Fatalf("%s: %v", before, err)
		}
		got := make([]byte, len(data))
		if _, err := f.ReadBackAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: ReadBackAt = %v", before, err)
		}
		if err := errors.Join(f.Commit(), f.Close(), d.Close()); err != nil {
			t.Fatalf("%s: %v", before, err)
		}
		if !bytes.Equal(r.Read("esp/EFI/B.efi"), data) || !bytes.Equal(r.Read("esp/EFI/A.efi"), old) {
			t.Errorf("%s: the files are not what they should be", before)
		}
	}
	r.Sh("ln -sf A.efi esp/EFI/B.efi")
	if _, err := open(t, r, device.Install).OpenSlot("B", "uki"); err == nil {
		t.Error("a symbolic link to the file of slot A is accepted")
	}
}

// A file of a role counts as held when its content is exactly the signed one.
func TestIntactFile(t *testing.T) {
	r := fileRig(t, grubBoot, "DIR/esp:/EFI/{slot}.efi")
	r.Sh("head -c 300000 image.img >uki")
	r.Expect(0, "", "release", "create", "--product", "demo", "--version", "7", "uki=uki", "rootfs=image.img")
	r.Sign("release.toml", "release")
	r.Expect(0, "slot B boots next", "install", "--config", "config.toml", "release.toml")
	for _, c := range []struct {
		script string
		whole  bool
	}{
		{"true", true},
		{"printf x | dd of=esp/EFI/B.efi bs=1 seek=4000 conv=notrunc status=none", false},
		{"cp uki esp/EFI/B.efi", true},
		{"truncate -s +1 esp/EFI/B.efi", false},
		{"truncate -s 4096 esp/EFI/B.efi", false},
		{"rm esp/EFI/B.efi", false},
	} {
		r.Sh(c.script)
		d := open(t, r, device.Change)
		trust, err := d.Config.Policy(nil, d.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Intact(t.Context(), "B", trust); (err == nil) != c.whole {
			t.Errorf("%s: Intact = %v; want it whole: %v", c.script, err, c.whole)
		}
		d.Close()
	}
}

// A bare map belongs to no release: a slot into which version 0.1 has since installed one role is not intact, whichever role it is.
func TestIntactWithABareMap(t *testing.T) {
	r := fileRig(t, grubBoot, "DIR/esp:/EFI/{slot}.efi")
	r.Sh("cp image.img uki; cp image.img.bmap bare.bmap; cp image.img.bmap.asc bare.bmap.asc")
	r.Expect(0, "", "release", "create", "--product", "demo", "--version", "7", "uki=uki", "rootfs=image.img")
	r.Sign("release.toml", "release")
	for _, role := range []string{"rootfs", "uki"} {
		r.Install(0, "slot B boots next", "--rewrite", "release.toml")
		d := open(t, r, device.Change)
		trust, err := d.Config.Policy(nil, d.Now())
		if err == nil {
			err = d.KeepDocument("B", role, r.Read("bare.bmap"), r.Read("bare.bmap.asc"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Intact(t.Context(), "B", trust); !errors.Is(err, device.ErrRefused) {
			t.Errorf("a bare map of %s: Intact = %v", role, err)
		}
		d.Close()
	}
}
