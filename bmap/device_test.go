package bmap_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"updater/bmap"
)

// TestCreateDevice maps a block device, which has neither FIEMAP nor SEEK_HOLE: nonzero blocks are mapped.
func TestCreateDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a loop device needs root")
	}
	needTool(t, "losetup")
	image := sparseImage(t, t.TempDir(), mib, span(8*kib, 8*kib))
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", image).Output()
	if err != nil {
		t.Skipf("losetup: %v", err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	m := create(t, device, bmap.CreateOptions{MaxRange: -1})
	if got := rangeTexts(m); got != "2-3" || m.ImageSize() != mib {
		t.Errorf("ranges of the device are %s of %d bytes; want 2-3", got, m.ImageSize())
	}
	wantSound(t, m, image)
}
