package target_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/provision/plan"
	"updater/provision/provisiontest"
	"updater/provision/target"
)

// openFile makes a disk image file of size bytes, full of old data, and opens it.
func openFile(t *testing.T, size int64) (string, *blockdev.Device) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("old data "), 1<<16)
	for _, off := range []int64{0, size / 2, size - int64(len(junk))} {
		if _, err := f.WriteAt(junk, off); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	d, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return path, d
}

const layoutPlan = `name = "gateway"
[[partition]]
name = "esp"
type = "esp"
size = "40M"
[[partition]]
name = "rootfs_a"
size = "25%"
image = "rootfs.img"
[[partition]]
name = "data"
size = "rest"
[record]
spool = "spool"
station = "bench"
key = "station.pem"
`

func TestWriteTable(t *testing.T) {
	p, err := plan.Parse([]byte(layoutPlan))
	if err != nil {
		t.Fatal(err)
	}
	path, d := openFile(t, 400<<20)
	placed, err := p.Place(path, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	layout := target.Layout{GUID: p.Disk.GUID, Parts: placed, Sector: 512}
	if err := layout.Write(d, ""); err != nil {
		t.Fatal(err)
	}
	if out := provisiontest.Tool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	info := provisiontest.Tool(t, "sgdisk", "-i1", "-i2", path)
	for _, want := range []string{"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "First sector: 2048 ", "'rootfs_a'", "First sector: 83968 "} {
		if !strings.Contains(info, want) {
			t.Errorf("sgdisk -i has no %q: %s", want, info)
		}
	}
	table := provisiontest.Tool(t, "sgdisk", "-p", path)
	if err := layout.Write(d, ""); err != nil {
		t.Fatal(err)
	}
	if again := provisiontest.Tool(t, "sgdisk", "-p", path); again == table {
		t.Error("a second disk got the same GUID")
	}
	// A byte that changes in either copy is found.
	for _, off := range []int64{1024 + 60, 512 + 60, d.Size() - 512 - 100, d.Size() - 512 + 20, d.Size() - 512 - 16384 + 60} {
		one := make([]byte, 1)
		if _, err := d.ReadAt(one, off); err != nil {
			t.Fatal(err)
		}
		one[0] ^= 1
		if _, err := d.WriteAt(one, off); err != nil {
			t.Fatal(err)
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := layout.Check(d); err == nil {
			t.Errorf("a changed byte at %d was not found", off)
		}
		one[0] ^= 1
		if _, err := d.WriteAt(one, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := layout.Check(d); err != nil {
		t.Error(err)
	}
}
