package blockdev

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev/gpt"
)

// TestDirtyLimits: all limits are set, or those before one that cannot be, and the old values come back, where the kernel knows them.
func TestDirtyLimits(t *testing.T) {
	for name, c := range map[string]struct {
		before, during, after map[string]string
		note                  string
	}{
		"Linux 6.2": {
			map[string]string{"max_bytes": "9", "max_ratio_fine": "7000", "strict_limit": "0"},
			map[string]string{"max_bytes": "1000", "max_ratio_fine": "7000", "strict_limit": "1"},
			map[string]string{"max_bytes": "1000", "max_ratio_fine": "7000", "strict_limit": "0"},
			"max_ratio_fine 7000\nstrict_limit 0\n",
		},
		"older": {map[string]string{"max_ratio": "50"}, map[string]string{"max_ratio": "1"}, map[string]string{"max_ratio": "50"},
			"max_ratio 50\n"},
		"no share": {map[string]string{"max_ratio": "0"}, map[string]string{"max_ratio": "1"}, map[string]string{"max_ratio": "100"},
			"max_ratio 0\n"},
		"unreadable": {map[string]string{"max_bytes": "9", "strict_limit": "0"}, map[string]string{"max_bytes": "9", "strict_limit": "0"}, nil, ""},
		"nothing set": {map[string]string{"max_bytes/x": "", "max_ratio_fine": "7000", "strict_limit": "0"}, map[string]string{"strict_limit": "0"},
			map[string]string{"max_ratio_fine": "7000", "strict_limit": "0"}, "max_ratio_fine 7000\nstrict_limit 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			sysfs, notes := t.TempDir(), filepath.Join(t.TempDir(), "run/updater")
			for file, text := range c.before {
				if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(sysfs, "bdi", file)), 0o755),
					os.WriteFile(filepath.Join(sysfs, "bdi", file), []byte(text+"\n"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			want := func(when string, files map[string]string) {
				t.Helper()
				for file, text := range files {
					if got, err := os.ReadFile(filepath.Join(sysfs, "bdi", file)); err != nil || strings.TrimSpace(string(got)) != text {
						t.Errorf("%s is %s %s, %v; want %s", file, got, when, err, text)
					}
				}
			}
			restore := limitDirty(sysfs, notes, 1000)
			want("under a writer", c.during)
			if note, err := os.ReadFile(bdiNote(sysfs, notes)); string(note) != c.note || (err != nil) != (c.note == "") {
				t.Errorf("the note is %q, %v; want %q", note, err, c.note)
			}
			if err := restore(); err != nil {
				t.Error(err)
			}
			want("afterwards", c.after)
			if left, _ := filepath.Glob(filepath.Join(notes, "*")); len(left) > 0 {
				t.Errorf("notes stay: %s", left)
			}
		})
	}
	dir := t.TempDir()
	if err := setNoted(dir, "evil 1\nmax_ratio 0\n"); err != nil {
		t.Error(err)
	}
	if files, _ := filepath.Glob(dir + "/*"); len(files) != 1 || filepath.Base(files[0]) != "max_ratio" {
		t.Errorf("setNoted wrote %s; want max_ratio", files)
	}
}

// TestOtherDisk: the note of a disk does not change the limits of another one that took its name.
func TestOtherDisk(t *testing.T) {
	sysfs, notes := t.TempDir(), t.TempDir()
	set := func(seq, ratio string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Join(sysfs, "bdi"), 0o755), os.WriteFile(filepath.Join(sysfs, "diskseq"), []byte(seq+"\n"), 0o600),
			os.WriteFile(filepath.Join(sysfs, "bdi/max_ratio"), []byte(ratio), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	ratio := func() string {
		text, _ := os.ReadFile(filepath.Join(sysfs, "bdi/max_ratio"))
		return string(text)
	}
	set("5", "50")
	limitDirty(sysfs, notes, 1000) // by a run that is killed
	set("6", "1")
	if err := restoreDirty(sysfs, notes); err != nil || ratio() != "1" {
		t.Errorf("the limit of another disk is %s, %v", ratio(), err)
	}
	set("5", "1")
	if err := restoreDirty(sysfs, notes); err != nil || ratio() != "50" {
		t.Errorf("the limit is %s, %v; want 50", ratio(), err)
	}
	if err := errors.Join(os.WriteFile(bdiNote(sysfs, notes), []byte("strict_limit 1\n"), 0o600), os.RemoveAll(filepath.Join(sysfs, "bdi"))); err != nil {
		t.Fatal(err)
	}
	if err := restoreDirty(sysfs, notes); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("restoring a limit that is gone = %v; want the error", err)
	}
	if err := os.MkdirAll(filepath.Join(bdiNote(sysfs, notes), "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := restoreDirty(sysfs, notes); err == nil {
		t.Error("a note that cannot be removed is no error")
	}
}

// TestFacts reads the facts of a partition and of its disk, and puts them in a line.
func TestFacts(t *testing.T) {
	disk := t.TempDir()
	d := &Device{name: "slot", size: 4096, sysfs: disk, node: filepath.Join(disk, "p1")}
	for file, text := range map[string]string{
		"queue/logical_block_size": "512", "queue/physical_block_size": "4096", "queue/write_cache": "write back", "queue/fua": "1",
		"queue/discard_max_bytes": "8192", "queue/write_zeroes_max_bytes": "16384", "queue/rotational": "1", "removable": "1", "bdi/max_ratio": "7",
		"ro": "0", "p1/ro": "0", "device/name": "Disk", "device/fwrev": "2", "p1/holders/dm-0": "",
	} {
		path := filepath.Join(disk, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	want := Facts{Name: "slot", Kind: "block device", Size: 4096, LogicalBlock: 512, PhysicalBlock: 4096, WriteCache: "write back", FUA: true,
		DiscardMax: 8192, WriteZeroesMax: 16384, Rotational: true, Removable: true, Holders: []string{"dm-0"}, Model: "Disk", Firmware: "2", MaxRatio: 7}
	if got := d.Facts(); !reflect.DeepEqual(got, want) {
		t.Errorf("Facts = %+v; want %+v", got, want)
	}
	if got, want := d.Facts().String(), "slot, block device, Disk 2, blocks of 512/4096 bytes, cache write back, held by dm-0"; got != want {
		t.Errorf("String = %q; want %q", got, want)
	}
	if got := (Facts{Name: "image", Kind: "file"}).String(); got != "image, file" {
		t.Errorf("String of a file = %q", got)
	}
	want.EMMC = &EMMC{Used: 10}
	if got := want.String(); !strings.Contains(got, ", cache write back, eMMC without write reliability 10 % of its life used, held by dm-0") {
		t.Errorf("String = %q, without the eMMC", got)
	}
	for _, file := range []string{"ro", "p1/ro"} {
		if err := os.WriteFile(filepath.Join(disk, file), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !d.Facts().ReadOnly {
			t.Errorf("a device with %s = 1 is not read-only", file)
		}
		if err := os.WriteFile(filepath.Join(disk, file), []byte("0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckImageOfSlot: a file system for smaller sectors than those of the slot's disk is refused. A file has no sectors.
func TestCheckImageOfSlot(t *testing.T) {
	ext := make([]byte, 2048) // blocks of 1024 bytes
	ext[1024+56], ext[1024+57] = 0x53, 0xef
	for _, c := range []struct {
		d      *Device
		head   []byte
		refuse bool
	}{
		{&Device{node: "sda1", direct: &kernelFile{}, align: 4096}, ext, true}, {&Device{node: "sda1", direct: &kernelFile{}, align: 1024}, ext, false},
		{&Device{node: "sda1", align: 4096}, ext, false}, {&Device{direct: &kernelFile{}, align: 4096}, ext, false},
		{&Device{node: "sda1", direct: &kernelFile{}, align: 4096}, make([]byte, 2048), false},
	} {
		err := (&Writer{d: c.d}).CheckImage(c.head, 1<<20)
		if _, ok := errors.AsType[*SectorSizeError](err); ok != c.refuse || err != nil && !ok {
			t.Errorf("CheckImage on %q with sectors of %d bytes = %v; want an error: %v", c.d.node, c.d.align, err, c.refuse)
		}
	}
}

// TestHeldBy finds a mount or a holder of a block device by its folder in sysfs. /proc serves as a mounted device.
func TestHeldBy(t *testing.T) {
	var proc unix.Stat_t
	if err := unix.Stat("/proc", &proc); err != nil {
		t.Fatal(err)
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(proc.Dev), unix.Minor(proc.Dev))
	for want, files := range map[string]map[string]string{
		"":                 {"dev": "0:0", "x": ""},
		"held by dm-0":     {"dev": "0:0", "holders/dm-0": ""},
		"mounted on /proc": {"dev": dev, "holders/dm-0": ""},
	} {
		dir := t.TempDir()
		for file, text := range files {
			path := filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got := heldBy(dir); got != want {
			t.Errorf("heldBy = %q; want %q", got, want)
		}
	}
	for root, want := range map[string]string{"": "/proc", "/": "/proc", "/none": ""} {
		if got, err := mountOf(dev, root); got != want || err != nil {
			t.Errorf("mountOf(%s, %q) = %q, %v; want %q", dev, root, got, err, want)
		}
	}
	if err := busyBlock("slot", "/proc"); err.Error() != "slot is busy: held by another program" {
		t.Errorf("busyBlock of a device that nobody is known to use = %v", err)
	}
}

// TestOtherSectors: a table for sectors of a size other than the disk's is used, with a fault.
func TestOtherSectors(t *testing.T) {
	table, err := gpt.New(128, 512, gpt.GUID{1}, []gpt.Entry{{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50}})
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 128*512)
	copy(head, gpt.ProtectiveMBR(128))
	for _, p := range append(table.Pieces(), table.Mirror().Pieces()...) {
		copy(head[p.Offset:], p.Data)
	}
	r := headReader{bytes.NewReader(head)}
	for own, want := range map[int64]string{0: "", 512: "", 4096: "made for sectors of 512 bytes, the disk has 4096"} {
		got, err := parseTable(func(sector int64) *gpt.Tables { return gpt.Read(r, 128*512, sector) }, r, 128*512, own)
		if err != nil || len(got.parts) != 1 || (len(got.faults) > 0) != (want != "") || !strings.Contains(fmt.Sprint(got.faults), want) {
			t.Errorf("a disk with sectors of %d bytes: %+v, %v; want a fault with %q", own, got, err, want)
		}
	}
}

// TestNodesAndWindows: a node finds its partition, and the node of the disk finds none of its windows. A window is opened exclusively under a
// claim on the whole disk; a partition with a node needs none.
func TestNodesAndWindows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, make([]byte, 8192), 0o600), os.WriteFile(path+"1", make([]byte, 4096), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := &Disk{path: path, block: true}
	d.table.gpt = &gpt.Tables{}
	node := Partition{Number: 1, Path: "/dev/null", Size: 4096, disk: d}
	window := Partition{Number: 2, Path: "/dev/zero", Size: 4096, window: true, disk: d}
	d.table.parts = []Partition{node, window}
	if p, err := d.Find("/dev/null"); err != nil || p.Number != 1 {
		t.Errorf("Find of a node = %v, %v; want partition 1", p, err)
	}
	for _, none := range []string{"/dev/zero", "/dev/none"} {
		p, err := d.Find(none)
		if err == nil || errors.Is(err, os.ErrNotExist) != (none == "/dev/none") || strings.Contains(err.Error(), "ambiguous") {
			t.Errorf("Find(%s) = %v, %v; want an error", none, p, err)
		}
	}
	window.Path, node.Path = path, path+"1"
	for _, mode := range []Mode{ReadOnly, Shared, Exclusive} {
		w, err := window.Open(mode)
		if err != nil || (d.claim != nil) != (mode == Exclusive) {
			t.Fatalf("opening a window in mode %d = %v, claimed: %v", mode, err, d.claim != nil)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.claim.Close(); err != nil {
		t.Fatal(err)
	}
	d.claim, d.path = nil, "/dev/none" // which cannot be claimed
	if w, err := window.Open(Exclusive); w != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("opening a window of a disk that cannot be claimed = %v, %v; want an error", w, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (&Disk{path: path, f: f, size: 8192, block: true}).readTable(); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("reading the table of a disk whose sectors are unknown = %v; want ENOTTY", err)
	}
	n, err := node.Open(Exclusive)
	if err != nil {
		t.Fatalf("opening a node of a disk that cannot be claimed = %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestSectorsOfTheDisk: if two tables are damaged, the error is that of the one for the disk's own sectors.
func TestSectorsOfTheDisk(t *testing.T) {
	image := make([]byte, 128*512)
	copy(image, gpt.ProtectiveMBR(128))
	copy(image[512:], "EFI PART")
	copy(image[4096:], "EFI PART")
	image[4096+12] = 92
	r := headReader{bytes.NewReader(image)}
	for own, want := range map[int64]string{512: "header size is 0 bytes", 4096: "checksum of the header"} {
		_, err := parseTable(func(sector int64) *gpt.Tables { return gpt.Read(r, 128*512, sector) }, r, 128*512, own)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a disk with sectors of %d bytes: %v; want %q", own, err, want)
		}
	}
}

// TestWriterLimitsDirty: a writer through the page cache limits the dirty pages of its disk until Close, a direct one does not.
func TestWriterLimitsDirty(t *testing.T) {
	for engine, want := range map[string]string{Paced: "1", Auto: "1", Direct: "50"} {
		sysfs := filepath.Join(t.TempDir(), fmt.Sprint("test", os.Getpid())) // no other note has its name
		ratio := filepath.Join(sysfs, "bdi/max_ratio")
		f, err := os.Create(filepath.Join(t.TempDir(), "slot"))
		if err := errors.Join(err, f.Truncate(8192), os.MkdirAll(filepath.Dir(ratio), 0o755), os.WriteFile(ratio, []byte("50"), 0o600)); err != nil {
			t.Fatal(err)
		}
		file := KernelFile(f, false)
		d := New("slot", Files{Main: file, Direct: file, Size: 8192})
		d.sysfs = sysfs
		w, err := d.NewWriter(WriterOptions{Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		during, _ := os.ReadFile(ratio)
		_ = w.Close() // notes need root
		after, _ := os.ReadFile(ratio)
		if string(during) != want || strings.TrimSpace(string(after)) != "50" {
			t.Errorf("%s: the limit is %s under a writer and %s afterwards; want %s and 50", engine, during, after, want)
		}
	}
}

// Only media that are known to be built in are read back while they are written.
func TestBuiltIn(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		files map[string]string
		want  bool
	}{
		"NVMe":           {"pci/nvme/nvme0n1", map[string]string{"removable": "0"}, true},
		"eMMC":           {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "MMC", "device/removable": "fixed"}, true},
		"SD card":        {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "SD"}, false},
		"MMC in a slot":  {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "MMC", "device/removable": "removable"}, false},
		"USB disk":       {"pci/usb1/1-1/sda", map[string]string{"removable": "0", "device/type": "0"}, false},
		"card reader":    {"pci/ata1/sdb", map[string]string{"removable": "1", "device/type": "0"}, false},
		"device mapper":  {"virtual/block/dm-0", map[string]string{"removable": "0", "slaves/sda": ""}, false},
		"unknown kernel": {"x/y", map[string]string{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), c.path)
			for _, d := range []string{"device", "slaves"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := builtIn(dir); got != c.want {
				t.Errorf("builtIn = %v; want %v", got, c.want)
			}
		})
	}
}
