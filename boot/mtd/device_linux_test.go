package mtd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeviceWithoutRequests: a device without a request for bad blocks has none, like NOR; one that cannot erase returns an error. Flash
// itself is tested in test/loaders.
func TestDeviceWithoutRequests(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "flash"))
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{f: f, info: info{Size: 8192, Erase: 4096}}
	if d.Size() != 8192 || d.EraseSize() != 4096 || d.String() != f.Name() {
		t.Errorf("the device is %s, %d bytes in blocks of %d", d, d.Size(), d.EraseSize())
	}
	got := make([]byte, 4)
	if _, err := d.WriteAt([]byte("text"), 4096); err != nil {
		t.Error(err)
	}
	if _, err := d.ReadAt(got, 4096); err != nil || string(got) != "text" {
		t.Errorf("ReadAt = %q, %v", got, err)
	}
	if bad, err := d.Bad(4096); bad || err != nil {
		t.Errorf("Bad = %v, %v; want a good block", bad, err)
	}
	if err := d.Erase(4096); !errors.Is(err, unix.ENOTTY) || !strings.Contains(err.Error(), "MEMERASE "+f.Name()) {
		t.Errorf("Erase = %v; want ENOTTY", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Bad(4096); !errors.Is(err, unix.EBADF) {
		t.Errorf("Bad of a closed device = %v; want EBADF", err)
	}
}
