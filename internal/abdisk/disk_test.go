package abdisk_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"updater/internal/abdisk"
)

// need skips the test when a host tool is missing.
func need(t *testing.T) {
	t.Helper()
	if missing := abdisk.Missing(); missing != nil {
		t.Skip("missing Debian packages: ", strings.Join(missing, " "))
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func write(t *testing.T, name, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDisk(t *testing.T) {
	need(t)
	b := &abdisk.Builder{Dir: t.TempDir()}
	disk := filepath.Join(t.TempDir(), "disk.img")
	content := strings.Repeat("slot A ", 20000)
	c := abdisk.DiskConfig{
		Path: disk, SlotA: write(t, "a.img", content), AppA: write(t, "app.img", "app"), FillB: 0xa5,
		Recovery: write(t, "initramfs", "cpio"), RecoveryKernel: write(t, "vmlinuz", "kernel"),
	}
	if err := b.Disk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	if got := tool(t, "grub-fstest", disk, "cat", "(loop0,gpt1)/recovery/initramfs"); got != "cpio" {
		t.Errorf("GRUB reads %q as the recovery; want %q", got, "cpio")
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	filled := strings.Repeat("\xa5", 4096)
	for _, p := range []struct {
		number, label, want string
		place               func(slot string) (start, length int64)
	}{
		{"2", "rootfs_a", content, abdisk.SlotRange}, {"3", "rootfs_b", filled, abdisk.SlotRange},
		{"5", "app_a", "app", abdisk.AppRange}, {"6", "app_b", filled, abdisk.AppRange},
	} {
		start, length := p.place(strings.ToUpper(p.label[len(p.label)-1:]))
		got, err := io.ReadAll(io.NewSectionReader(f, start, int64(len(p.want))))
		if err != nil || !bytes.Equal(got, []byte(p.want)) {
			t.Errorf("%s does not hold what it was made from (err %v)", p.label, err)
		}
		info := tool(t, "sgdisk", "-i", p.number, disk)
		for _, s := range []string{p.label, sectors("First sector: ", start), sectors("Partition size: ", length)} {
			if !strings.Contains(info, s) {
				t.Errorf("sgdisk -i %s does not say %q:\n%s", p.number, s, info)
			}
		}
	}
}

func sectors(name string, bytes int64) string {
	var digits []byte
	for n := bytes / 512; n > 0; n /= 10 {
		digits = append([]byte{byte('0' + n%10)}, digits...)
	}
	return name + string(digits) + " "
}

func TestDiskRefusesImageLargerThanSlot(t *testing.T) {
	need(t)
	big := write(t, "big.img", "")
	_, length := abdisk.SlotRange("A")
	if err := os.Truncate(big, length+1); err != nil {
		t.Fatal(err)
	}
	b := &abdisk.Builder{Dir: t.TempDir()}
	err := b.Disk(t.Context(), abdisk.DiskConfig{Path: filepath.Join(t.TempDir(), "disk.img"), SlotA: big})
	if err == nil || !strings.Contains(err.Error(), "larger than its partition") {
		t.Errorf("Disk with an oversized slot image = %v; want a refusal", err)
	}
}

func TestEnv(t *testing.T) {
	need(t)
	b := &abdisk.Builder{Dir: t.TempDir()}
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := b.Disk(t.Context(), abdisk.DiskConfig{Path: disk, SlotA: write(t, "a.img", "x")}); err != nil {
		t.Fatal(err)
	}
	env := abdisk.Env{Disk: disk}
	want := map[string]string{"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "0", "B_TRY": "0"}
	got, err := env.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("fresh environment block (-want +got):\n%s", d)
	}
	if err := env.BootRecovery(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := env.Set(t.Context(), "ORDER=B A", "B_OK=1"); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"ORDER": "B A", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0", "next_entry": "recovery"}
	if got, err = env.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changed environment block (-want +got):\n%s", d)
	}
	if raw := tool(t, "grub-fstest", disk, "cat", "(loop0,gpt1)/grub/grubenv"); len(raw) != 1024 || !strings.Contains(raw, "next_entry=recovery\n") {
		t.Errorf("GRUB reads %d bytes: %.80q", len(raw), raw)
	}
}

func TestStick(t *testing.T) {
	need(t)
	b := &abdisk.Builder{Dir: t.TempDir()}
	stick := filepath.Join(t.TempDir(), "stick.img")
	if err := b.Stick(t.Context(), stick, map[string]string{"image.zst": write(t, "x", "packed"), "image.bmap": write(t, "y", "map")}); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, "mtype", "-i", stick, "::updater/image.zst"); got != "packed" {
		t.Errorf("image on the stick = %q; want %q", got, "packed")
	}
	if got := tool(t, "mlabel", "-s", "-i", stick, "::"); !strings.Contains(got, "UPDATER") {
		t.Errorf("label of the stick: %s", got)
	}
}

func TestSign(t *testing.T) {
	need(t)
	b := &abdisk.Builder{Dir: filepath.Join(t.TempDir(), strings.Repeat("a-long-folder-name/", 8))}
	key, err := b.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, "image.bmap", "content")
	sig, err := b.Sign(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	ring := filepath.Join(t.TempDir(), "ring.gpg")
	tool(t, "gpg", "--batch", "--homedir", t.TempDir(), "--yes", "--output", ring, "--dearmor", key)
	tool(t, "gpgv", "--keyring", ring, sig, file)

	again, err := (&abdisk.Builder{Dir: b.Dir}).Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(key)
	after, _ := os.ReadFile(again)
	if !bytes.Equal(before, after) {
		t.Error("a second run made another key")
	}
}

// bmaptool and zstd read the files that Update makes; bmaptool also replaces our binary here.
func TestUpdate(t *testing.T) {
	need(t)
	if _, err := exec.LookPath("bmaptool"); err != nil {
		t.Skip("package bmap-tools: ", err)
	}
	b := &abdisk.Builder{Dir: t.TempDir(), Updater: write(t, "updater", "#!/bin/sh\nexec bmaptool create -o \"$4\" \"$5\"\n")}
	if err := os.Chmod(b.Updater, 0o755); err != nil {
		t.Fatal(err)
	}
	image := write(t, "image", strings.Repeat("content ", 10000))
	files, err := b.Update(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	stick := filepath.Join(t.TempDir(), "stick.img")
	if err := b.Stick(t.Context(), stick, files); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	tool(t, "mcopy", "-s", "-i", stick, "::updater", out)
	name := func(s string) string { return filepath.Join(out, "updater", s) }
	tool(t, "bmaptool", "copy", "--bmap", name("image.bmap"), "--no-sig-verify", name("image.zst"), name("image"))
	tool(t, "cmp", image, name("image"))
	tool(t, "test", "-s", name("image.bmap.asc"))
}
