package initramfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The labels that the real tools write.
func TestVolumeLabel(t *testing.T) {
	folder := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
	}{
		{"FAT12", []string{"mkfs.vfat", "-F", "12", "-n", "UPDATER"}},
		{"FAT16", []string{"mkfs.vfat", "-F", "16", "-n", "UPDATER"}},
		{"FAT32", []string{"mkfs.vfat", "-F", "32", "-n", "UPDATER"}},
		{"exFAT", []string{"mkfs.exfat", "-L", "UPDATER"}},
		{"ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", "UPDATER"}},
		{"ISO 9660", []string{"xorriso", "-as", "mkisofs", "-quiet", "-V", "UPDATER", folder, "-o"}},
		{"no label", []string{"mkfs.vfat"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tool, err := exec.LookPath(c.args[0])
			if err != nil {
				if tool, err = exec.LookPath("/usr/sbin/" + c.args[0]); err != nil {
					t.Skipf("%s is not installed", c.args[0])
				}
			}
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, 48<<20); err != nil {
				t.Fatal(err)
			}
			if c.name == "FAT12" {
				_ = os.Truncate(image, 4<<20)
			}
			if out, err := exec.Command(tool, append(c.args[1:], image)...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", c.args[0], err, out)
			}
			want := "UPDATER"
			if c.name == "no label" {
				want = "NO NAME" // the default of FAT
			}
			if got := volumeLabel(image); got != want {
				t.Errorf("label = %q; want %q", got, want)
			}
		})
	}
}

// A hostile medium cannot make it read far, or panic.
func FuzzLabel(f *testing.F) {
	exfat := make([]byte, 4096)
	copy(exfat[3:], "EXFAT   ")
	exfat[108], exfat[109], exfat[88], exfat[96] = 9, 0, 1, 2
	copy(exfat[512:], []byte{0x83, 2, 'U', 0, 'P', 0})
	f.Add(exfat)
	f.Add(make([]byte, 40000))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, image []byte) {
		if label := labelOf(bytes.NewReader(image)); len(label) > 64 {
			t.Errorf("label of %d bytes", len(label))
		}
	})
}
