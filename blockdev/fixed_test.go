package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestDirtyLimits: all limits are set, or those before one that cannot be, and what was there comes back, where the kernel knows it.
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
