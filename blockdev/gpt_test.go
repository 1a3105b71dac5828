package blockdev_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/internal/crashdisk"
)

// gptDisk makes a disk image file with a table by sgdisk, made for a disk of small bytes and then as large as size, with
// noise where the table does not reach.
func gptDisk(t *testing.T, small, size int64, sgdisk ...string) string {
	t.Helper()
	path := partitioned(t, small, sgdisk...)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size > small {
		if _, err := f.Write(bytes.Repeat([]byte{0xa5}, int(size-small))); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func fitGPT(t *testing.T, path string, o blockdev.GPTOptions) (blockdev.GPTFit, error) {
	t.Helper()
	d, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return blockdev.FitGPT(d, o)
}

// wantVerified has sgdisk check both tables of the disk.
func wantVerified(t *testing.T, path string) {
	t.Helper()
	if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") || strings.Contains(strings.ToLower(out), "caution") {
		t.Errorf("sgdisk -v %s:\n%s", path, out)
	}
}

// partitions are the lines of sgdisk's list.
func partitions(t *testing.T, path string) []string {
	return regexp.MustCompile(`(?m)^ +\d+ +\d+ .*$`).FindAllString(run(t, "sgdisk", "-p", path), -1)
}

const mib = 1 << 20

var twoParts = []string{"-n1:2048:+4M", "-c1:boot", "-n2:0:+8M", "-c2:root", "-A2:set:2", "-U11111111-2222-3333-4444-555555555555"}

func TestFitGPT(t *testing.T) {
	tests := []struct {
		name        string
		small, size int64
		sgdisk      []string
		o           blockdev.GPTOptions
		moved       bool
		grown       int
	}{
		{"same size", 32 * mib, 32 * mib, twoParts, blockdev.GPTOptions{}, false, 0},
		{"larger", 32 * mib, 50 * mib, twoParts, blockdev.GPTOptions{}, true, 0},
		{"larger by a sector", 32 * mib, 32*mib + 512, twoParts, blockdev.GPTOptions{SectorSize: 512}, true, 0},
		{"larger by less than a sector", 32 * mib, 32*mib + 511, twoParts, blockdev.GPTOptions{}, false, 0},
		{"grown", 32 * mib, 50 * mib, twoParts, blockdev.GPTOptions{GrowLast: true}, true, 2},
		{"grown on the same disk", 32 * mib, 32 * mib, twoParts, blockdev.GPTOptions{GrowLast: true}, true, 2},
		{"the last partition is not the last entry", 32 * mib, 50 * mib, []string{"-n2:2048:+4M", "-n1:16384:+8M"}, blockdev.GPTOptions{GrowLast: true},
			true, 1},
		{"no partition", 32 * mib, 50 * mib, []string{"-o"}, blockdev.GPTOptions{GrowLast: true}, true, 0},
		{"more entries", 32 * mib, 50 * mib, append([]string{"-S256"}, twoParts...), blockdev.GPTOptions{GrowLast: true}, true, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := gptDisk(t, tt.small, tt.size, tt.sgdisk...)
			before, parts := readAll(t, path), partitions(t, path)
			fit, err := fitGPT(t, path, tt.o)
			if err != nil || !fit.Found || fit.Moved != tt.moved || fit.Grown != tt.grown {
				t.Fatalf("FitGPT = %+v, %v", fit, err)
			}
			wantVerified(t, path)
			disk := readAll(t, path)
			if same := bytes.Equal(before, disk); same == tt.moved {
				t.Errorf("the disk is the same: %v", same)
			}
			if got := int64(binary.LittleEndian.Uint32(disk[446+12:])); got != tt.size/512-1 || fit.OldLBA != tt.small/512-1 || fit.NewLBA != tt.size/512-1 {
				t.Errorf("FitGPT = %+v, the MBR spans %d sectors; want %d", fit, got, tt.size/512-1)
			}
			if tt.grown != 0 {
				if p := openDisk(t, path).Partitions()[tt.grown-1]; p.Size != fit.GrownTo || fit.GrownFrom != 8*mib || fit.GrownTo <= fit.GrownFrom {
					t.Errorf("FitGPT = %+v; want the sizes of partition %d, which has %d bytes", fit, tt.grown, p.Size)
				}
			}
			after := partitions(t, path)
			for i := range parts {
				if grew := after[i] != parts[i]; grew != strings.HasPrefix(strings.TrimSpace(parts[i]), itoa(int64(tt.grown))+" ") {
					t.Errorf("partition was %s, is %s", parts[i], after[i])
				}
			}
			if again, err := fitGPT(t, path, tt.o); err != nil || again.Moved || again.Grown != 0 {
				t.Errorf("FitGPT again = %+v, %v; want nothing to do", again, err)
			}
			change(t, path, func(b []byte) { copy(b[:mib], before) }) // as a power cut leaves it, after the backup
			if _, err := fitGPT(t, path, tt.o); err != nil || !bytes.Equal(readAll(t, path), disk) {
				t.Errorf("FitGPT of a disk with a new backup and the old primary table = %v, or another table", err)
			}
		})
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFitGPTRepairs damages the backup, which is restored.
func TestFitGPTRepairs(t *testing.T) {
	for name, at := range map[string]int64{"backup header": 32*mib - 512 + 40, "backup entries": 32*mib - 33*512 + 3,
		"backup's signature": 32*mib - 512} {
		t.Run(name, func(t *testing.T) {
			path := gptDisk(t, 32*mib, 32*mib, twoParts...)
			want := readAll(t, path)
			poke(t, path, at)
			if fit, err := fitGPT(t, path, blockdev.GPTOptions{}); err != nil || !fit.Moved {
				t.Errorf("FitGPT = %+v, %v", fit, err)
			}
			if !bytes.Equal(readAll(t, path), want) {
				t.Error("the disk is not as it was before the damage")
			}
		})
	}
}

// poke flips a byte.
func poke(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// TestFitGPTRefuses changes nothing on a disk whose table it cannot fit.
func TestFitGPTRefuses(t *testing.T) {
	flip := func(at int64) func(*testing.T, string) { return func(t *testing.T, p string) { poke(t, p, at) } }
	tests := []struct {
		name   string
		change func(t *testing.T, path string)
		o      blockdev.GPTOptions
		msg    string // "" is a disk without a table
	}{
		{"no table", flip(512), blockdev.GPTOptions{}, ""},
		{"header size", flip(512 + 12), blockdev.GPTOptions{}, "header size is 28 bytes, expected 92 to 512"},
		{"header", flip(512 + 60), blockdev.GPTOptions{}, "checksum of the header is"},
		{"entries", flip(1024 + 33), blockdev.GPTOptions{}, "checksum of the entries at sector 2 is"},
		{"other sectors", func(*testing.T, string) {}, blockdev.GPTOptions{SectorSize: 4096}, "made for sectors of 512 bytes, the disk has 4096"},
		{"odd sectors", func(*testing.T, string) {}, blockdev.GPTOptions{SectorSize: 520}, "sectors of 520 bytes"},
		{"disk too small", func(t *testing.T, p string) { truncate(t, p, 12*mib) }, blockdev.GPTOptions{}, "partition 2 ends at sector"},
		{"disk of two sectors", func(t *testing.T, p string) { truncate(t, p, 1024) }, blockdev.GPTOptions{}, "expected inside the disk of 2 sectors"},
		{"disk tiny", func(t *testing.T, p string) { truncate(t, p, 4096) }, blockdev.GPTOptions{}, "expected inside the disk of 8 sectors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := gptDisk(t, 32*mib, 40*mib, twoParts...)
			tt.change(t, path)
			before := readAll(t, path)
			fit, err := fitGPT(t, path, tt.o)
			_, isGPT := errors.AsType[*blockdev.GPTError](err)
			if tt.msg == "" && (err != nil || fit.Found) || tt.msg != "" && (!isGPT || !strings.Contains(err.Error(), tt.msg)) {
				t.Errorf("FitGPT = %+v, %v; want %q", fit, err, tt.msg)
			}
			if !bytes.Equal(before, readAll(t, path)) {
				t.Error("the disk was changed")
			}
		})
	}
}

// TestFitGPTHybrid leaves a hybrid MBR alone.
func TestFitGPTHybrid(t *testing.T) {
	path := gptDisk(t, 32*mib, 40*mib, append(twoParts, "-h1")...)
	mbr := readAll(t, path)[:512]
	if fit, err := fitGPT(t, path, blockdev.GPTOptions{}); err != nil || !fit.Moved {
		t.Fatalf("FitGPT = %+v, %v", fit, err)
	}
	if !bytes.Equal(mbr, readAll(t, path)[:512]) {
		t.Error("the hybrid MBR was changed")
	}
}

// TestFitGPTDevice fits tables on block devices with sectors of both sizes.
func TestFitGPTDevice(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			need(t, "losetup", "sgdisk")
			if os.Getuid() != 0 {
				t.Skip("loop devices need root")
			}
			path := filepath.Join(t.TempDir(), "disk")
			truncate(t, path, 32*mib)
			attach := func() string {
				out, err := exec.Command("losetup", "-b", sector, "-f", "--show", path).Output()
				if err != nil {
					t.Skipf("no loop device with sectors of %s bytes: %v", sector, err)
				}
				return strings.TrimSpace(string(out))
			}
			node := attach()
			run(t, "sgdisk", "-n1:0:+4M", "-n2:0:+8M", node)
			run(t, "losetup", "-d", node)
			truncate(t, path, 64*mib)
			node = attach()
			defer run(t, "losetup", "-d", node)
			size, err := blockdev.SectorSize(node)
			if err != nil || itoa(size) != sector {
				t.Errorf("SectorSize = %d, %v", size, err)
			}
			if whole, err := blockdev.IsWholeDisk(node); err != nil || !whole {
				t.Errorf("IsWholeDisk = %v, %v", whole, err)
			}
			if fit, err := fitGPT(t, node, blockdev.GPTOptions{SectorSize: size, GrowLast: true}); err != nil || !fit.Moved || fit.Grown != 2 {
				t.Errorf("FitGPT = %+v, %v", fit, err)
			}
			wantVerified(t, node)
			wantSeen(t, path, node, sector)
		})
	}
}

// wantSeen opens the disk behind a loop device, whose table is for its sectors, and the file, whose sectors are not known. Attached
// with other sectors, it is one that Linux ignores.
func wantSeen(t *testing.T, path, node, sector string) {
	t.Helper()
	for _, name := range []string{node, path} {
		if d := openDisk(t, name); d.Degraded() != "" || itoa(d.SectorSize()) != sector || len(d.Partitions()) != 2 {
			t.Errorf("%s: Degraded %q, sectors of %d bytes, %d partitions", name, d.Degraded(), d.SectorSize(), len(d.Partitions()))
		}
	}
	other := map[string]string{"512": "4096", "4096": "512"}[sector]
	out, err := exec.Command("losetup", "-r", "-b", other, "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop device with sectors of %s bytes: %v", other, err)
	}
	second := strings.TrimSpace(string(out))
	defer run(t, "losetup", "-d", second)
	d := openDisk(t, second)
	defer d.Close()
	if want := "made for sectors of " + sector + " bytes, the disk has " + other; !strings.Contains(d.Degraded(), want) {
		t.Errorf("Degraded = %q; want %q", d.Degraded(), want)
	}
}

// TestFitGPTFaults: an operation that fails is the error, or the tables are as if it had not failed.
func TestFitGPTFaults(t *testing.T) {
	content := readAll(t, gptDisk(t, 3*mib, 4*mib, "-n1:2048:+512K"))
	fit := func(f crashdisk.Fault) (*crashdisk.Disk, error) {
		disk := crashdisk.New(content, crashdisk.Options{})
		disk.Inject(f)
		_, err := blockdev.FitGPT(disk.Device("disk", 0, int64(len(content))), blockdev.GPTOptions{})
		return disk, err
	}
	whole, err := fit(crashdisk.Fault{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []crashdisk.Kind{crashdisk.EIO, crashdisk.ENODATA, crashdisk.FlushKeep} {
		failed := 0
		for n := 1; n <= whole.Operations(); n++ {
			disk, err := fit(crashdisk.Fault{N: n, Kind: kind})
			if err != nil {
				failed++
			} else if !bytes.Equal(disk.Medium(), whole.Medium()) {
				t.Errorf("%v at operation %d: FitGPT = nil, and the tables are not written", kind, n)
			}
		}
		if failed == 0 {
			t.Errorf("%v is never an error", kind)
		}
	}
}

// TestFitGPTPowerCut cuts the power at every step: one table is always whole, the old primary or the new backup.
func TestFitGPTPowerCut(t *testing.T) {
	path := gptDisk(t, 15*mib, 16*mib, twoParts...)
	content := readAll(t, path)
	for _, o := range []blockdev.GPTOptions{{}, {GrowLast: true}} {
		disk := crashdisk.New(content, crashdisk.Options{})
		d := disk.Device("disk", 0, int64(len(content)))
		if fit, err := blockdev.FitGPT(d, o); err != nil || !fit.Moved {
			t.Fatalf("FitGPT = %+v, %v", fit, err)
		}
		states, err := disk.Crashes(crashdisk.Plan{}, func(s *crashdisk.State) error {
			primary := bytes.HasPrefix(s.Image[512:], []byte("EFI PART")) && tableIsWhole(s.Image, 512)
			backup := tableIsWhole(s.Image, int64(len(s.Image))-512)
			if !primary && !backup {
				return errors.New("neither table is whole")
			}
			return nil
		})
		t.Logf("%d states", states)
		if err != nil || states < 20 {
			t.Errorf("%d states: %v", states, err)
		}
	}
}
