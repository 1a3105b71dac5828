package blockdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// loopDisk is a loop device with a GPT of two partitions, whose labels no other disk of this machine has.
func loopDisk(t *testing.T) (node, image string, parts []string) {
	t.Helper()
	id := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
	image = partitioned(t, 8<<20, "-n1:2048:+1M", "-c1:a-"+id, "-n2:0:+2M", "-c2:b-"+id)
	return loop(t, image, 8<<20), image, []string{"PARTLABEL=a-" + id, "PARTLABEL=b-" + id}
}

// TestFindDisk finds a disk by its partitions, and never chooses one of several.
func TestFindDisk(t *testing.T) {
	node, image, parts := loopDisk(t)
	wants := func(spec, want, words string) {
		t.Helper()
		got, err := blockdev.FindDisk(spec, parts)
		if got != want || (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("FindDisk(%q) = %q, %v; want %q, %q", spec, got, err, want, words)
		}
	}
	wants("", node, "")
	wants(node, node, "")
	wants("/dev/none", "", "no disk /dev/none")
	wants("SERIAL=none such", "", "no disk matches: SERIAL=none such")
	wants("BUS=virtual/block/"+filepath.Base(node), node, "")
	wants("BUS=virtual/bloc", "", "no disk matches")
	copied := filepath.Join(t.TempDir(), "copy.img")
	data, err := os.ReadFile(image)
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := openFiles(node); n != 0 {
		t.Errorf("%d files are open after the search", n)
	}
	second := loop(t, copied, 8<<20)
	wants("", "", "several disks match")
	wants(node, "", "both have the partitions")
	wants(copied, copied, "")
	wants("BUS=virtual/block/"+filepath.Base(second), second, "")
}

// TestFindDiskBySysfs finds disks in a sysfs that the test makes. Their nodes are disk image files.
func TestFindDiskBySysfs(t *testing.T) {
	dir := t.TempDir()
	sys, dev := filepath.Join(dir, "sys"), filepath.Join(dir, "dev")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := blockdev.FindDiskIn(sys, dev, "/dev/vda", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("FindDisk without a sysfs = %v; want ErrNotExist", err)
	}
	twins := string(readAll(t, partitioned(t, 4<<20, "-n1:2048:+1M", "-c1:esp", "-n2:0:+512K", "-c2:slot")))
	other := string(readAll(t, partitioned(t, 4<<20, "-n1:2048:+64K", "-c1:esp")))
	for path, disk := range map[string]struct{ size, image string }{
		"pci0/0000:05/virtio2/block/vda": {"4096", other}, "pci0/usb1/1-1/host0/sda": {"131072", twins}, "soc/mmc0/mmc0:1/mmcblk0": {"9", "no table"},
		"pci0/raid/cciss!c0d0": {"9", ""}, // these are not looked at:
		"pci0/ata1/sr0":        {"0", twins}, "virtual/ram0": {"9", twins}, "virtual/zram0": {"9", twins}, "virtual/dm-0": {"9", twins},
		"virtual/md0": {"9", twins}, "virtual/new": {"", twins},
	} {
		name := filepath.Base(path)
		write(filepath.Join(sys, "devices", path, "size"), disk.size+"\n")
		if disk.image != "" {
			write(filepath.Join(dev, name), disk.image)
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(sys, "block"), 0o755),
			os.Symlink(filepath.Join("../devices", path), filepath.Join(sys, "block", name))); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{"pci0/0000:05/virtio2/block/vda/serial": "disk 1", "pci0/usb1/1-1/serial": "stick 2 \n",
		"pci0/usb1/1-1/host0/sda/device/vpd_pg80": "\x00\x80\x00\x08    page3\x00", "soc/mmc0/mmc0:1/mmcblk0/device/vpd_pg80": "\x00\x80",
		"soc/mmc0/mmc0:1/serial": "0x4\n", "serial": "\n", "../serial": "all"} {
		write(filepath.Join(sys, "devices", path), text)
	}
	vda, sda, mmc := filepath.Join(dev, "vda"), filepath.Join(dev, "sda"), filepath.Join(dev, "mmcblk0")
	for _, tt := range []struct {
		spec  string
		parts []string
		want  string // or the error
	}{
		{"SERIAL=disk 1", nil, vda}, {"SERIAL=stick 2", nil, sda}, {"SERIAL=page3", nil, sda}, {"SERIAL=0x4", nil, mmc},
		{"SERIAL=disk", nil, "no disk matches: SERIAL=disk"}, {"SERIAL=all", nil, "no disk matches"}, {"SERIAL=", nil, "does not name a disk"},
		{"BUS=pci0/usb1", nil, sda}, {"BUS=/mmcblk0/", nil, mmc}, {"BUS=raid/cciss!c0d0", nil, filepath.Join(dev, "cciss/c0d0")},
		{"BUS=pci0/usb", nil, "no disk matches"}, {"BUS=pci0", nil, "several disks match"}, {"BUS=virtual", nil, "no disk matches"},
		{"BUS=", nil, "does not name a disk"}, {"LABEL=a", nil, "does not name a disk"}, {"SERIAL", nil, "does not name a disk"},
		{"BUS", nil, "does not name a disk"}, {"vda", nil, "does not name a disk"},
		{"", nil, "no disk matches"}, {"", []string{"PARTLABEL=slot", "PARTLABEL=esp"}, sda}, {"", []string{"PARTLABEL=esp"}, "several disks match (" + sda + ", " + vda},
		{"", []string{"PARTLABEL=esp", "PARTLABEL=none"}, "no disk matches: with PARTLABEL=esp, PARTLABEL=none"},
		{"", []string{"LABEL=esp"}, "no disk matches"},
		{filepath.Join(dev, "none"), nil, "no disk " + filepath.Join(dev, "none")}, {filepath.Join(dev, "sr0"), []string{"PARTLABEL=slot"}, filepath.Join(dev, "sr0")},
	} {
		got, err := blockdev.FindDiskIn(sys, dev, tt.spec, tt.parts)
		if found := strings.HasPrefix(tt.want, "/"); found && (got != tt.want || err != nil) || !found && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("FindDisk(%q, %q) = %q, %v; want %q", tt.spec, tt.parts, got, err, tt.want)
		}
	}
	if n := openFiles(dir); n != 0 {
		t.Errorf("%d files are open after the search", n)
	}
}

// TestWindowsOfADisk: partitions without nodes are windows of the disk, which is claimed for all of them at once.
func TestWindowsOfADisk(t *testing.T) {
	node, _, parts := loopDisk(t)
	disk := openDisk(t, node)
	if disk.IsFile() || disk.Path() != node || disk.Size() != 8<<20 || disk.SectorSize() != 512 || len(disk.Partitions()) != 2 {
		t.Errorf("the disk is %s, file %v, %d bytes, sectors of %d", disk.Path(), disk.IsFile(), disk.Size(), disk.SectorSize())
	}
	if head, tail, err := disk.TableAreas(); err != nil || head != 34*512 || tail != 33*512 {
		t.Errorf("TableAreas = %d, %d, %v", head, tail, err)
	}
	if _, _, err := openDisk(t, mbrDisk(t)).TableAreas(); err == nil || !strings.Contains(err.Error(), "expected a GUID partition table") {
		t.Errorf("TableAreas of an MBR = %v", err)
	}
	for _, label := range parts {
		if p := find(t, disk, label); p.Path != node {
			t.Skipf("a former user of %s has left the partition node %s", node, p.Path)
		}
	}
	p := find(t, disk, parts[1])
	wantCleanFailures(t, node, func() (any, error) {
		d, err := blockdev.OpenDisk(node)
		if err != nil {
			return nil, err
		}
		w, err := find(t, d, parts[1]).Open(blockdev.Exclusive)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		return w.Features(), errors.Join(w.Close(), d.Close())
	})
	if err := p.Busy(); err != nil {
		t.Errorf("Busy of a free partition = %v", err)
	}
	for _, c := range []struct{ off, size int64 }{{2 << 20, 1}, {0, 2<<20 + 1}, {-(2<<20 + 1), 1}, {0, 0}, {0, -1}} {
		if _, err := p.OpenWindow(c.off, c.size, blockdev.ReadOnly); err == nil || !strings.Contains(err.Error(), "not inside") {
			t.Errorf("OpenWindow(%d, %d) = %v", c.off, c.size, err)
		}
	}
	last, err := p.OpenWindow(-4096, 4096, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := find(t, disk, parts[0]).Open(blockdev.Exclusive)
	if err != nil {
		t.Fatalf("a second window of the disk: %v", err)
	}
	if err := p.Busy(); !isBusy(err) {
		t.Errorf("Busy of a claimed disk = %v", err)
	}
	if _, err := find(t, openDisk(t, node), parts[0]).Open(blockdev.Exclusive); !isBusy(err) {
		t.Errorf("a window of a disk that is claimed = %v", err)
	}
	want := bytes.Repeat([]byte{7}, 4096)
	if _, err := last.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(last.Sync(), last.Close(), whole.Close()); err != nil {
		t.Fatal(err)
	}
	probe, err := p.Open(blockdev.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	got := make([]byte, 8192)
	if _, err := probe.ReadBackAt(got, 2<<20-8192); err != nil || !bytes.Equal(got, append(make([]byte, 4096), want...)) {
		t.Errorf("the end of the partition is not what was written: %v", err)
	}
	if f := probe.Features(); !f.SyncRange || !f.Direct || !f.ZeroOut {
		t.Errorf("Features of a loop device = %+v", f)
	}
}

// TestDiskLocks: the install lock and the lock of the boot state exclude only their own kind, also in another process.
func TestDiskLocks(t *testing.T) {
	path := newDisk(t)
	first, second := openDisk(t, path), openDisk(t, path)
	unlock, err := first.LockBoot(0)
	if err != nil {
		t.Fatal(err)
	}
	held := func(err error) bool {
		locked, ok := errors.AsType[*blockdev.LockedError](err)
		return ok && strings.Contains(locked.Error(), "is locked by")
	}
	if _, err := second.LockBoot(0); !held(err) {
		t.Errorf("a second LockBoot = %v; want a LockedError", err)
	}
	install, err := blockdev.LockDisk(path, 0)
	if err != nil {
		t.Fatalf("the install lock beside the lock of the boot state: %v", err)
	}
	if err := second.Lock(0); !held(err) {
		t.Errorf("a second install lock = %v; want a LockedError", err)
	}
	if _, err := blockdev.LockDisk(path, 0); !held(err) {
		t.Errorf("a third install lock = %v; want a LockedError", err)
	}
	if err := errors.Join(unlock(), install.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := second.LockBoot(0)
	if err := errors.Join(err, second.Lock(0)); err != nil {
		t.Errorf("the locks after they were released: %v", err)
	} else if err := again(); err != nil {
		t.Error(err)
	}
	if _, err := blockdev.LockDisk("/dev/none", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LockDisk of nothing = %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := first.LockBoot(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LockBoot of a disk that is gone = %v", err)
	}
	if err := first.Close(); err != nil || first.Lock(0) == nil {
		t.Errorf("Lock of a closed disk = nil, Close = %v", err)
	}
}

// TestNoBlockDevice: operations that only a block device has are an error on anything else, and nothing stays open.
func TestNoBlockDevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	truncate(t, file, mib)
	null := openFiles("/dev/null")
	calls := map[string]func(path string) error{
		"MountPoint":   func(path string) error { _, err := blockdev.MountPoint(path); return err },
		"IsWholeDisk":  func(path string) error { _, err := blockdev.IsWholeDisk(path); return err },
		"SectorSize":   func(path string) error { _, err := blockdev.SectorSize(path); return err },
		"RereadTable":  func(path string) error { _, err := blockdev.RereadTable(path, 0); return err },
		"AddPartition": func(path string) error { return blockdev.AddPartition(path, 1, mib, mib) },
	}
	for name, call := range calls {
		if err := call("/dev/none"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of nothing = %v; want ErrNotExist", name, err)
		}
		refused := name == "SectorSize" || name == "AddPartition"
		if err := call(file); errors.Is(err, unix.ENOTTY) != refused || (err == nil) == refused {
			t.Errorf("%s of a file = %v; want ENOTTY: %v", name, err, refused)
		}
	}
	if nodes, err := blockdev.RereadTable("/dev/null", 0); !nodes || !errors.Is(err, unix.ENOTTY) {
		t.Errorf("RereadTable of a character device = %v, %v; want ENOTTY", nodes, err)
	}
	if n := openFiles(file) + openFiles("/dev/null") - null; n != 0 {
		t.Errorf("%d files are open", n)
	}
}

// TestRereadTable: the kernel reads the table of a disk with partition nodes again, unless one of them is in use.
func TestRereadTable(t *testing.T) {
	node, image, _ := loopDisk(t)
	for _, path := range []string{node, image} {
		if nodes, err := blockdev.RereadTable(path, 0); err != nil || nodes {
			t.Errorf("RereadTable(%s) = %v, %v; want no nodes", path, nodes, err)
		}
	}
	if _, err := blockdev.RereadTable("/dev/none", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("RereadTable of nothing = %v", err)
	}
	scanned := loop(t, filepath.Join(t.TempDir(), "disk.img"), 4<<20, "-P")
	if err := blockdev.AddPartition(scanned, 3, 1<<20, 1<<20); err != nil {
		t.Skip(err)
	}
	if size, err := os.ReadFile("/sys/class/block/" + filepath.Base(scanned) + "p3/size"); err != nil || string(size) != "2048\n" {
		t.Errorf("the kernel has partition 3 with %s sectors, %v", size, err)
	}
	if err := blockdev.AddPartition(scanned, 4, 1<<20, 1<<20); !errors.Is(err, unix.EBUSY) {
		t.Errorf("AddPartition over another one = %v; want EBUSY", err)
	}
	dev, err := os.ReadFile("/sys/class/block/" + filepath.Base(scanned) + "p3/dev")
	if err != nil {
		t.Fatal(err)
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(dev)), ":")
	part := filepath.Join(t.TempDir(), "p3")
	run(t, "mknod", part, "b", major, minor)
	if whole, err := blockdev.IsWholeDisk(part); whole || err != nil {
		t.Errorf("IsWholeDisk of a partition = %v, %v", whole, err)
	}
	used, err := os.Open(part)
	if err != nil {
		t.Fatal(err)
	}
	if nodes, err := blockdev.RereadTable(scanned, 0); !nodes || !isBusy(err) {
		t.Errorf("RereadTable while a partition is in use = %v, %v; want a BusyError", nodes, err)
	}
	time.AfterFunc(50*time.Millisecond, func() { used.Close() })
	if nodes, err := blockdev.RereadTable(scanned, time.Minute); !nodes || err != nil {
		t.Errorf("RereadTable once the partition is free = %v, %v", nodes, err)
	}
	if n := openFiles(scanned); n != 0 {
		t.Errorf("%d files are open", n)
	}
}

// TestMountPoint finds the folder where a device is mounted, whatever its name contains.
func TestMountPoint(t *testing.T) {
	need(t, "mke2fs")
	image := filepath.Join(t.TempDir(), "fs.img")
	node := loop(t, image, 8<<20)
	run(t, "mke2fs", "-q", node)
	if dir, err := blockdev.MountPoint(node); err != nil || dir != "" {
		t.Errorf("MountPoint of a device that is not mounted = %q, %v", dir, err)
	}
	dir := filepath.Join(t.TempDir(), "a b\\c\td\ne")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", node, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	defer run(t, "umount", dir)
	if got, err := blockdev.MountPoint(node); err != nil || got != dir {
		t.Errorf("MountPoint = %q, %v; want %q", got, err, dir)
	}
	if got, err := blockdev.MountPoint(image); err != nil || got != "" {
		t.Errorf("MountPoint of a file = %q, %v", got, err)
	}
	if _, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive); !isBusy(err) || !strings.Contains(err.Error(), "mounted on "+dir) {
		t.Errorf("opening a mounted device = %v; want a BusyError that names %s", err, dir)
	}
	part := t.TempDir() // the device is mounted there, but not its root
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", filepath.Join(dir, "sub"), part)
	run(t, "umount", dir)
	if got, err := blockdev.MountPoint(node); err != nil || got != "" {
		t.Errorf("MountPoint of a device of which a folder is mounted = %q, %v", got, err)
	}
	if _, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive); !isBusy(err) || !strings.Contains(err.Error(), "mounted on "+part) {
		t.Errorf("opening a device of which a folder is mounted = %v; want a BusyError that names %s", err, part)
	}
	run(t, "mount", node, dir)
	run(t, "umount", part)
	if _, err := blockdev.MountPoint("/dev/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("MountPoint of nothing = %v", err)
	}
}

// TestRootPartition: the disk that booted holds the root partition, or both are unknown.
func TestRootPartition(t *testing.T) {
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	_, none := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(root.Dev), unix.Minor(root.Dev)))
	disk, err := blockdev.BootDisk()
	if errors.Is(err, blockdev.ErrNoBootDisk) != (none != nil) {
		t.Errorf("BootDisk = %v, the root file system is on no block device: %v", err, none)
	}
	part, perr := blockdev.RootPartition()
	if (err == nil) != (perr == nil) || err == nil && (!strings.HasPrefix(part, disk) || part == disk) {
		t.Errorf("BootDisk = %q, %v; RootPartition = %q, %v", disk, err, part, perr)
	}
}

// TestPartlyMissingNodes: the kernel knows one partition of the table and not the other. Both open exclusively in either order, and
// exclude others; while the one with a node is in use, the other is busy, and a third program sees the disk claimed.
func TestPartlyMissingNodes(t *testing.T) {
	id := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
	parts := []string{"PARTLABEL=a-" + id, "PARTLABEL=b-" + id}
	node := loop(t, partitioned(t, 8<<20, "-n1:2048:+1M", "-c1:a-"+id, "-n2:0:+2M", "-c2:b-"+id), 8<<20, "-P")
	t.Cleanup(func() { _ = exec.Command("partx", "--delete", node).Run() })
	if out, err := exec.Command("partx", "--update", "--nr", "1", node).CombinedOutput(); err != nil {
		t.Skipf("partx: %v: %s", err, out)
	}
	open := func(label string) (*blockdev.Device, error) {
		d := openDisk(t, node)
		t.Cleanup(func() { _ = d.Close() })
		return find(t, d, label).Open(blockdev.Exclusive)
	}
	for _, order := range [][]string{parts, {parts[1], parts[0]}} {
		disk := openDisk(t, node)
		if p := find(t, disk, parts[0]); p.Path == node {
			t.Fatalf("%s has no node", p)
		}
		for _, label := range order {
			d, err := find(t, disk, label).Open(blockdev.Exclusive)
			if err != nil {
				t.Fatalf("%s of %v: %v", label, order, err)
			}
			defer d.Close()
			for _, other := range parts {
				if _, err := open(other); !isBusy(err) {
					t.Errorf("%s of a disk that is claimed = %v", other, err)
				}
			}
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
	}
	used, err := os.OpenFile(find(t, openDisk(t, node), parts[0]).Path, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	for _, label := range parts {
		if _, err := open(label); !isBusy(err) {
			t.Errorf("%s beside a partition in use = %v", label, err)
		}
	}
}
