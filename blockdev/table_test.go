package blockdev_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/blockdev/gpt"
)

// mbrDisk makes a disk image of 160 MiB with slots on primary partitions 2 and 3 and logical partitions 5 and 6, as on a
// Raspberry Pi.
func mbrDisk(t *testing.T) string {
	t.Helper()
	need(t, "sfdisk")
	path := filepath.Join(t.TempDir(), "disk.img")
	truncate(t, path, 160*mib)
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0x1234abcd\nstart=1MiB,size=33MiB,type=c,bootable\nsize=20MiB,type=c\nsize=20MiB,type=c\n" +
		"size=+,type=f\nsize=20MiB,type=83\nsize=20MiB,type=83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

func TestMBR(t *testing.T) {
	d := openDisk(t, mbrDisk(t))
	if d.Degraded() != "" || d.SectorSize() != 512 || len(d.Partitions()) != 5 {
		t.Errorf("Degraded %q, sectors of %d bytes, partitions %v", d.Degraded(), d.SectorSize(), d.Partitions())
	}
	for spec, number := range map[string]int{
		"/dev/mmcblk0p2": 2, "/dev/mmcblk0p6": 6, "/dev/sda5": 5, "PARTUUID=1234abcd-03": 3, "PARTUUID=1234ABCD-06": 6,
	} {
		p, err := d.Find(spec)
		if err != nil || p.Number != number || p.Size != 20*mib {
			t.Errorf("Find(%q) = %v of %d bytes, %v; want partition %d", spec, p.Number, p.Size, err, number)
			continue
		}
		w := open(t, p)
		if w.Size() != p.Size {
			t.Errorf("partition %d opens with %d bytes", number, w.Size())
		}
		w.Close()
	}
	for spec, want := range map[string]string{
		"PARTLABEL=rootfs": "an MBR, which has no labels, with partitions 1 PARTUUID=1234abcd-01", "/dev/mmcblk0p4": "is not on disk",
	} {
		if _, err := d.Find(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q) = %v; want %q", spec, err, want)
		}
	}
	if repaired, err := d.RepairTable(); repaired || err != nil {
		t.Errorf("RepairTable of an MBR = %v, %v; want nothing done", repaired, err)
	}
}

func TestReadTable(t *testing.T) {
	for name, tt := range map[string]struct{ path, spec string }{
		"GPT": {newDisk(t), "PARTLABEL=rootfs_b"}, "MBR": {mbrDisk(t), "PARTUUID=1234abcd-02"},
	} {
		whole := find(t, openDisk(t, tt.path), tt.spec)
		image := readAll(t, tt.path)
		p, err := blockdev.ReadTable("image", image[:blockdev.TableBytes], int64(len(image)), tt.spec)
		if name == "MBR" { // its logical partitions are not in the head
			if err == nil || !strings.Contains(err.Error(), "beyond the beginning") {
				t.Errorf("ReadTable of an MBR = %v; want an error", err)
			}
			p, err = blockdev.ReadTable("image", image, int64(len(image)), tt.spec)
		}
		if err != nil || p.Offset != whole.Offset || p.Size != whole.Size || p.Number != whole.Number {
			t.Errorf("%s: ReadTable = %+v, %v; want %+v", name, p, err, whole)
		}
	}
	if _, err := blockdev.ReadTable("image", make([]byte, 8192), mib, "PARTLABEL=x"); err == nil || !strings.Contains(err.Error(), "neither a GUID") {
		t.Errorf("ReadTable of zeros = %v", err)
	}
}

// change lets f change the bytes of a file.
func change(t *testing.T, path string, f func(b []byte)) {
	t.Helper()
	b := readAll(t, path)
	f(b)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTableFaults opens disks as Linux would see them.
func TestTableFaults(t *testing.T) {
	le := binary.LittleEndian
	good := newDisk(t)
	data := readAll(t, good)
	for _, tt := range []struct {
		name     string
		change   func(b []byte)
		degraded string
		err      string
	}{
		{name: "good", change: func([]byte) {}},
		{name: "primary damaged", change: func(b []byte) { b[600]++ }, degraded: "checksum of the header"},
		{name: "backup damaged", change: func(b []byte) { b[len(b)-500]++ }, degraded: "backup partition table at sector 131071"},
		{name: "no protective MBR", change: func(b []byte) { clear(b[:512]) }, degraded: "MBR does not protect"},
		{name: "both damaged", change: func(b []byte) { b[600]++; b[len(b)-500]++ }, err: "primary partition table at sector 1: checksum of the header"},
		{name: "nothing", change: func(b []byte) { clear(b) }, err: "neither a GUID partition table nor an MBR"},
		{name: "a real MBR over an old GPT", change: func(b []byte) {
			le.PutUint32(b[440:], 0x77)
			b[446+4] = 0x83
			le.PutUint32(b[446+12:], 100)
		}, err: "PARTLABEL=rootfs_b is not on disk"},
		{name: "MBR partitions overlap", change: func(b []byte) {
			clear(b)
			for i := range 2 {
				e := b[446+16*i:]
				e[4] = 0x83
				le.PutUint32(e[8:], uint32(10+i))
				le.PutUint32(e[12:], 5)
			}
			b[510], b[511] = 0x55, 0xaa
		}, err: "partitions 1 and 2 overlap"},
		{name: "MBR partitions side by side", change: func(b []byte) {
			clear(b)
			for i, first := range []uint32{15, 10} {
				e := b[446+16*i:]
				e[4] = 0x83
				le.PutUint32(e[8:], first)
				le.PutUint32(e[12:], 5)
			}
			b[510], b[511] = 0x55, 0xaa
		}, err: "an MBR, which has no labels, with partitions 1"},
		{name: "an empty MBR", change: func(b []byte) { clear(b); b[510], b[511] = 0x55, 0xaa }, err: "which has no partitions"},
		{name: "an empty MBR beside a GPT", change: func(b []byte) { clear(b[446:510]) }, degraded: "MBR does not protect"},
		{name: "an empty MBR beside a damaged GPT", change: func(b []byte) { clear(b[446:510]); b[600]++; b[len(b)-500]++ }, err: "checksum of the header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			b := bytes.Clone(data)
			tt.change(b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := blockdev.OpenDisk(path)
			if err == nil {
				defer d.Close()
				_, err = d.Find("PARTLABEL=rootfs_b")
			} else if _, ok := errors.AsType[*blockdev.TableError](err); !ok || openFiles(path) > 0 {
				t.Errorf("OpenDisk = %v, with %d open files; want a TableError and none", err, openFiles(path))
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("the error is %v; want %q", err, tt.err)
				}
				return
			}
			if err != nil || (d.Degraded() == "") != (tt.degraded == "") || !strings.Contains(d.Degraded(), tt.degraded) {
				t.Errorf("Degraded = %q, %v; want %q", d.Degraded(), err, tt.degraded)
			}
		})
	}
}

// TestRepairTable damages either copy, and leaves the disk as it was.
func TestRepairTable(t *testing.T) {
	for name, at := range map[string]int{"primary header": 600, "primary entries": 1100, "backup header": 64*mib - 500,
		"backup entries": 64*mib - 33*512, "nothing": -1} {
		t.Run(name, func(t *testing.T) {
			path := newDisk(t)
			want := readAll(t, path)
			if at >= 0 {
				change(t, path, func(b []byte) { b[at] ^= 1 })
			}
			d := openDisk(t, path)
			slot := open(t, find(t, d, "PARTLABEL=rootfs_b")) // in use
			defer slot.Close()
			if repaired, err := d.RepairTable(); err != nil || repaired != (at >= 0) {
				t.Errorf("RepairTable = %v, %v", repaired, err)
			}
			if !bytes.Equal(readAll(t, path), want) {
				t.Error("the disk is not as it was before the damage")
			}
			if n := openFiles(path); n != 1+3 { // the disk, and the slot
				t.Errorf("%d files are open after the repair", n)
			}
			if again := openDisk(t, path); again.Degraded() != "" {
				t.Errorf("Degraded = %q after the repair", again.Degraded())
			}
		})
	}
}

// TestRepairTableFails returns the error of a copy that is in use, and of a disk that is gone, and leaves nothing open.
func TestRepairTableFails(t *testing.T) {
	path := newDisk(t)
	change(t, path, func(b []byte) { b[600] ^= 1 })
	d, want := openDisk(t, path), readAll(t, path)
	used, err := blockdev.OpenPath(path, 1024, 512, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.RepairTable(); !isBusy(err) || !bytes.Equal(readAll(t, path), want) {
		t.Errorf("RepairTable of entries in use = %v, or it wrote; want a BusyError", err)
	}
	if err := errors.Join(used.Close(), os.Rename(path, path+".away")); err != nil {
		t.Fatal(err)
	}
	if repaired, err := d.RepairTable(); repaired || !errors.Is(err, os.ErrNotExist) || openFiles(path) != 1 {
		t.Errorf("RepairTable of a disk that is gone = %v, %v, %d files are open; want ErrNotExist, and the disk", repaired, err, openFiles(path))
	}
}

// TestRepairTableRefuses leaves a disk alone whose table names no place for its backup.
func TestRepairTableRefuses(t *testing.T) {
	path := newDisk(t)
	change(t, path, func(b []byte) { binary.LittleEndian.PutUint64(b[512+32:], 1<<20); reseal(b, 512) })
	want := readAll(t, path)
	d := openDisk(t, path)
	if repaired, err := d.RepairTable(); repaired || err == nil || !strings.Contains(err.Error(), "outside the disk") || d.Degraded() == "" {
		t.Errorf("RepairTable = %v, %v; Degraded %q; want an error", repaired, err, d.Degraded())
	}
	if !bytes.Equal(readAll(t, path), want) || openFiles(path) != 1 {
		t.Errorf("the disk was changed, or %d files are open", openFiles(path))
	}
}

// TestLargeSectors opens an image for sectors of 4096 bytes, and its partition.
func TestLargeSectors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	truncate(t, path, 8*mib)
	table, err := gpt.New(2048, 4096, gpt.NewGUID(), []gpt.Entry{{Number: 3, Type: gpt.GUID{1}, First: 256, Last: 511, Name: "slot"}})
	if err != nil {
		t.Fatal(err)
	}
	w, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(gpt.Write(w, table, gpt.ProtectiveMBR(2048)), w.Close()); err != nil {
		t.Fatal(err)
	}
	d := openDisk(t, path)
	p := find(t, d, "PARTLABEL=slot")
	if d.SectorSize() != 4096 || d.Degraded() != "" || p.Offset != mib || p.Size != mib || p.Number != 3 {
		t.Errorf("sectors of %d bytes, Degraded %q, partition %d at %d of %d bytes", d.SectorSize(), d.Degraded(), p.Number, p.Offset, p.Size)
	}
	if head, tail, err := d.TableAreas(); err != nil || head != 6*4096 || tail != 5*4096 {
		t.Errorf("TableAreas = %d, %d, %v", head, tail, err)
	}
	change(t, path, func(b []byte) { b[4096+60]++ })
	if d := openDisk(t, path); !strings.Contains(d.Degraded(), "checksum of the header") {
		t.Errorf("Degraded = %q", d.Degraded())
	} else if repaired, err := d.RepairTable(); !repaired || err != nil || openDisk(t, path).Degraded() != "" {
		t.Errorf("RepairTable = %v, %v", repaired, err)
	}
	node := loop(t, newDisk(t), 64*mib, "-b", "4096")
	if d := openDisk(t, node); !strings.Contains(d.Degraded(), "made for sectors of 512 bytes, the disk has 4096") {
		t.Errorf("Degraded = %q for a table that was made for other sectors", d.Degraded())
	}
}

// TestOpenDiskMemory opens a disk whose header, with a right checksum, asks for 2 GiB of entries.
func TestOpenDiskMemory(t *testing.T) {
	path := newDisk(t)
	change(t, path, func(b []byte) {
		for _, at := range []int{512, len(b) - 512} {
			binary.LittleEndian.PutUint32(b[at+80:], 1<<24)
		}
		reseal(b, 512)
		reseal(b, len(b)-512)
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := blockdev.OpenDisk(path)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 4*mib { // 3 MiB without the race detector
		t.Errorf("OpenDisk = %v and allocated %d bytes; want an error and 4 MiB at most", err, got)
	}
}

// TestCheckImage finds the errors before writing that FitGPT finds afterwards.
func TestCheckImage(t *testing.T) {
	gptImage, mbrImage := readAll(t, newDisk(t)), readAll(t, mbrDisk(t))
	long := readAll(t, partitioned(t, 64<<20, "-S1024", "-n1:2048:+8M"))
	grow := blockdev.GPTOptions{GrowLast: true}
	for _, tt := range []struct {
		name  string
		image []byte
		size  int64 // of the disk
		o     blockdev.GPTOptions
		want  string
	}{
		{"fits", gptImage, 64 * mib, blockdev.GPTOptions{SectorSize: 512}, ""},
		{"grows", gptImage, 128 * mib, grow, ""},
		{"other sectors", gptImage, 128 * mib, blockdev.GPTOptions{SectorSize: 4096}, "made for sectors of 512 bytes, the disk has 4096"},
		{"too small", gptImage, 32 * mib, blockdev.GPTOptions{}, "partition 5 ends at sector"},
		{"MBR", mbrImage, 200 * mib, blockdev.GPTOptions{SectorSize: 512}, ""},
		{"MBR to grow", mbrImage, 200 * mib, grow, "MBR found, expected a GUID"},
		{"no table", make([]byte, mib), 2 * mib, blockdev.GPTOptions{SectorSize: 4096}, ""},
		{"no table to grow", make([]byte, mib), 2 * mib, grow, "no partition table found"},
		{"a short image", make([]byte, 600), 2 * mib, blockdev.GPTOptions{}, ""},
		{"a table that reaches behind the head", long, 64 * mib, blockdev.GPTOptions{}, ""},
	} {
		head := tt.image[:min(len(tt.image), blockdev.TableBytes)]
		err := blockdev.CheckImage("image", head, int64(len(tt.image)), tt.size, tt.o)
		_, isGPT := errors.AsType[*blockdev.GPTError](err)
		if tt.want == "" && err != nil || tt.want != "" && (!isGPT || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: CheckImage = %v; want %q", tt.name, err, tt.want)
		}
		path := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(path, tt.image, 0o600); err != nil {
			t.Fatal(err)
		}
		truncate(t, path, tt.size)
		if _, fitErr := fitGPT(t, path, tt.o); (fitErr == nil) != (err == nil) {
			t.Errorf("%s: FitGPT = %v, CheckImage = %v; want both or none", tt.name, fitErr, err)
		}
	}
}

// An image without a GPT may be made for other sectors, too.
func TestCheckImageSectors(t *testing.T) {
	fat := make([]byte, 8*mib)
	copy(fat, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x04\x00\x02\x00\x02\x00\x40\xf8\x10\x00") // 16384 sectors of 512 bytes
	fat[510], fat[511] = 0x55, 0xaa
	ext := make([]byte, 8*mib)
	ext[1024+56], ext[1024+57] = 0x53, 0xef           // blocks of 1024 bytes
	ext4, ext64 := bytes.Clone(ext), bytes.Clone(ext) // blocks of 4096 and 65536 bytes
	ext4[1024+24], ext64[1024+24] = 2, 6
	fat4 := bytes.Clone(fat)
	copy(fat4[11:], "\x00\x10\x04\x04\x00\x02\x00\x02\x00\x08") // 2048 sectors of 4096 bytes
	table := readAll(t, mbrDisk(t))
	either := make([]byte, 8*mib) // an MBR whose partition is inside with sectors of both sizes
	copy(either[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 10, 0, 0, 0, 5, 0, 0, 0})
	either[510], either[511] = 0x55, 0xaa
	for _, tt := range []struct {
		name   string
		image  []byte
		sector int64
		refuse bool
	}{{"FAT", fat, 512, false}, {"FAT", fat, 4096, true}, {"MBR", table, 512, false}, {"MBR", table, 4096, true},
		{"ext", ext, 512, false}, {"ext", ext, 4096, true}, {"ext with blocks of 4096", ext4, 4096, false},
		{"ext with blocks of 64 KiB", ext64, 4096, false}, {"FAT for 4096", fat4, 4096, false}, {"MBR for either", either, 4096, false}} {
		err := blockdev.CheckImage("image", tt.image[:blockdev.TableBytes], int64(len(tt.image)), 1<<30, blockdev.GPTOptions{SectorSize: tt.sector})
		if _, ok := errors.AsType[*blockdev.SectorSizeError](err); ok != tt.refuse || err != nil && !ok {
			t.Errorf("%s on sectors of %d bytes: CheckImage = %v", tt.name, tt.sector, err)
		}
	}
	for _, sector := range []string{"512", "4096"} {
		node := loop(t, filepath.Join(t.TempDir(), "slot"), 16*mib, "-b", sector)
		d, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, d, blockdev.WriterOptions{})
		for name, image := range map[string][]byte{"FAT": fat, "ext": ext, "MBR": table} { // a table inside a slot is ignored
			err := w.CheckImage(image[:4096], int64(len(image)))
			if _, ok := errors.AsType[*blockdev.SectorSizeError](err); ok != (sector == "4096" && name != "MBR") {
				t.Errorf("%s on a slot with sectors of %s bytes: CheckImage = %v", name, sector, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzOpenDisk puts a header and entries, an MBR and a logical record on a disk. The partitions of a disk that opens lie inside
// it and do not overlap.
func FuzzOpenDisk(f *testing.F) {
	const sectors = 128
	table, err := gpt.New(sectors, 512, gpt.GUID{1}, []gpt.Entry{{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50, Name: "x"}})
	if err != nil {
		f.Fatal(err)
	}
	pieces := table.Pieces()
	f.Add(gpt.ProtectiveMBR(sectors), pieces[1].Data, pieces[0].Data[:256])
	f.Add(make([]byte, 512), pieces[1].Data, pieces[0].Data[:256])
	mbr := make([]byte, 512)
	copy(mbr[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0})
	mbr[510], mbr[511] = 0x55, 0xaa
	f.Add(mbr, mbr, []byte{})
	fd, err := unix.MemfdCreate("disk", 0)
	if err != nil {
		f.Skip(err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd) // a disk would make the fuzzer wait for its flushes
	f.Fuzz(func(t *testing.T, mbr, header, entries []byte) {
		b := make([]byte, sectors*512)
		copy(b[1024:], entries)
		copy(b[512:1024], header)
		copy(b[:512], mbr)
		reseal(b, 512)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := blockdev.OpenDisk(path)
		if err != nil {
			return
		}
		defer d.Close()
		_ = d.Degraded()
		for _, p := range d.Partitions() {
			if p.Offset < 512 || p.Size < 512 || p.Offset+p.Size > d.Size() {
				t.Errorf("%s: %d bytes at %d of %d", p, p.Size, p.Offset, d.Size())
			}
		}
		_, _ = d.RepairTable()
	})
}
