package provision_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/provision"
)

// openFile makes a disk image file of size bytes, full of what an earlier use left, and opens it.
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

// tool runs a tool that the test compares with, and skips where it is not installed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestWriteTable(t *testing.T) {
	p, err := provision.ParsePlan([]byte(layoutPlan))
	if err != nil {
		t.Fatal(err)
	}
	path, d := openFile(t, 400<<20)
	placed, err := p.Place(path, d.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := provision.WriteTable(d, p.Disk, placed, 512, ""); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	info := tool(t, "sgdisk", "-i1", "-i2", path)
	for _, want := range []string{"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "First sector: 2048 ", "'rootfs_a'", "First sector: 83968 "} {
		if !strings.Contains(info, want) {
			t.Errorf("sgdisk -i has no %q: %s", want, info)
		}
	}
	table := tool(t, "sgdisk", "-p", path)
	if err := provision.WriteTable(d, p.Disk, placed, 512, ""); err != nil {
		t.Fatal(err)
	}
	if again := tool(t, "sgdisk", "-p", path); again == table {
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
		if err := provision.CheckTable(d, placed, 512); err == nil {
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
	if err := provision.CheckTable(d, placed, 512); err != nil {
		t.Error(err)
	}
}
