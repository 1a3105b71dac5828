package mbr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"updater/blockdev/mbr"
)

const mib = 1 << 20

// memory is a disk.
type memory []byte

func (m memory) ReadBackAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(m).ReadAt(p, off)
	if off+int64(n) == int64(len(m)) {
		err = io.EOF // also of a whole read
	}
	return n, err
}

// sfdisk makes a disk of 160 MiB from a script.
func sfdisk(t *testing.T, script string) (path string, m memory) {
	t.Helper()
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed")
	}
	path = filepath.Join(t.TempDir(), "disk.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 160*mib)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	m, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, m
}

// raspberryPi has slots 2 and 3 as primary, 5 and 6 as logical partitions.
const raspberryPi = "label: dos\nlabel-id: 0x1234abcd\nstart=1MiB,size=33MiB,type=c,bootable\nsize=20MiB,type=c\nsize=20MiB,type=c\nsize=+,type=f\n" +
	"size=20MiB,type=83\nsize=20MiB,type=83\nsize=4MiB,type=82\n"

// TestReadAgreesWithSfdisk compares numbers, places and types with those that sfdisk lists.
func TestReadAgreesWithSfdisk(t *testing.T) {
	for name, script := range map[string]string{
		"Raspberry Pi":        raspberryPi,
		"primary only":        "label: dos\nstart=1MiB,size=8MiB,type=c\nsize=16MiB,type=83\n",
		"a number left out":   "label: dos\n3:start=1MiB,size=8MiB,type=c\n1:size=16MiB,type=83\n",
		"extended one first":  "label: dos\n1:start=1MiB,size=40MiB,type=5\n2:size=16MiB,type=83\n5:start=2MiB,size=8MiB\n6:size=8MiB\n",
		"empty extended one":  "label: dos\n1:start=1MiB,size=40MiB,type=5\n",
		"Linux extended type": "label: dos\n4:start=1MiB,size=40MiB,type=85\n5:start=2MiB,size=8MiB\n",
	} {
		t.Run(name, func(t *testing.T) {
			path, m := sfdisk(t, script)
			list, err := mbr.Read(m, int64(len(m)), 512)
			if err != nil {
				t.Fatal(err)
			}
			dump, err := exec.Command("sfdisk", "--dump", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]bool{}
			for _, f := range regexp.MustCompile(`img(\d+) : start= *(\d+), size= *(\d+), type=(\w+)`).FindAllStringSubmatch(string(dump), -1) {
				if f[4] != "5" && f[4] != "f" && f[4] != "85" {
					want[strings.Join(f[1:], " ")] = true
				}
			}
			for _, p := range list {
				line := fmt.Sprintf("%d %d %d %x", p.Number, p.Offset/512, p.Size/512, p.Type)
				if !want[line] {
					t.Errorf("Read lists %s, sfdisk\n%s", line, dump)
				}
				delete(want, line)
				if id := fmt.Sprintf("%08x-%02x", binary.LittleEndian.Uint32(m[440:]), p.Number); p.UUID != id {
					t.Errorf("UUID of partition %d = %s; want %s", p.Number, p.UUID, id)
				}
			}
			if len(want) > 0 {
				t.Errorf("Read lacks %v", want)
			}
		})
	}
}

// TestReadAgreesWithLinux has the kernel find the partitions of a loop device, where it scans them.
func TestReadAgreesWithLinux(t *testing.T) {
	path, m := sfdisk(t, raspberryPi)
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "-P", "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	node := strings.TrimSpace(string(out))
	defer func() { _ = exec.Command("losetup", "-d", node).Run() }()
	list, err := mbr.Read(m, int64(len(m)), 512)
	if err != nil || len(list) != 6 {
		t.Fatalf("Read = %v, %v", list, err)
	}
	for _, p := range list {
		dir := fmt.Sprintf("/sys/class/block/%sp%d/", filepath.Base(node), p.Number)
		start, err := os.ReadFile(dir + "start")
		if err != nil {
			t.Skipf("the kernel does not scan loop devices: %v", err)
		}
		size, err := os.ReadFile(dir + "size")
		if got, want := string(start)+string(size), fmt.Sprintf("%d\n%d\n", p.Offset/512, p.Size/512); err != nil || got != want {
			t.Errorf("the kernel has partition %d at %q, Read has %q", p.Number, got, want)
		}
	}
}

// disk is a small disk with one primary and two logical partitions.
func disk() memory {
	m := make(memory, 128*512)
	put := func(record int, signature uint32, parts ...[3]uint32) {
		r := m[record*512:][:512]
		binary.LittleEndian.PutUint32(r[440:], signature)
		for i, p := range parts {
			e := r[446+16*i:]
			e[4] = byte(p[0])
			binary.LittleEndian.PutUint32(e[8:], p[1])
			binary.LittleEndian.PutUint32(e[12:], p[2])
		}
		r[510], r[511] = 0x55, 0xaa
	}
	put(0, 0xabcd, [3]uint32{0x83, 1, 9}, [3]uint32{5, 10, 100})
	put(10, 0, [3]uint32{0x83, 1, 9}, [3]uint32{5, 20, 20})
	put(30, 0, [3]uint32{0x83, 1, 9})
	return m
}

func TestHostile(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		change func(m memory)
		none   bool
		want   string
	}{
		{"no signature", func(m memory) { m[510] = 0 }, true, "no signature"},
		{"protective", func(m memory) { m[446+4] = 0xee }, true, "protects a GUID"},
		{"a boot sector", func(m memory) { m[446] = 'x' }, true, "boot flag of partition 1"},
		{"the end of a boot sector", func(m memory) { m[446+48] = 1 }, true, "boot flag of partition 4 is 0x01"},
		{"protective at the end", func(m memory) { m[446+48+4] = 0xee }, true, "protects a GUID"},
		{"outside the disk", func(m memory) { le.PutUint32(m[446+12:], 128) }, false, "partition 1 (sectors 1-128) is not inside"},
		{"over the MBR", func(m memory) { le.PutUint32(m[446+8:], 0) }, false, "partition 1 (sectors 0-8) is not inside"},
		{"extended outside", func(m memory) { le.PutUint32(m[446+16+8:], 128) }, false, "record at sector 128 is not inside"},
		{"extended one is the MBR", func(m memory) { le.PutUint32(m[446+16+8:], 0) }, false, "returns to sector 0"},
		{"a second extended one is the MBR", func(m memory) { m[446+32+4], m[446+32+12] = 5, 9 }, false, "returns to sector 0"},
		{"logical outside", func(m memory) { le.PutUint32(m[30*512+446+12:], 1<<31) }, false, "partition 6 (sectors 31-"},
		{"a circle", func(m memory) { le.PutUint32(m[10*512+446+16+8:], 0) }, false, "returns to sector 10"},
		{"a long circle", func(m memory) {
			copy(m[30*512+446+16:], m[10*512+446+16:][:16])
			le.PutUint32(m[30*512+446+16+8:], 0)
		}, false, "returns to sector 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := disk()
			tt.change(m)
			list, err := mbr.Read(m, int64(len(m)), 512)
			if err == nil || errors.Is(err, mbr.ErrNone) != tt.none || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Read = %v, %v; want %q, ErrNone %v", list, err, tt.want, tt.none)
			}
		})
	}
	for cut := range int64(40) { // also a record outside a disk that ends early
		_, _ = mbr.Read(disk()[:cut*512], cut*512, 512)
	}
}

// TestRecords reads odd records as Linux does.
func TestRecords(t *testing.T) {
	entry := func(m memory, record, i int, kind byte, first, count uint32) {
		e := m[record*512+446+16*i:]
		e[4] = kind
		binary.LittleEndian.PutUint32(e[8:], first)
		binary.LittleEndian.PutUint32(e[12:], count)
	}
	for _, tt := range []struct {
		name   string
		change func(m memory)
		want   string
	}{
		{"as it is", func(memory) {}, "1:1+9 5:11+9 6:31+9"},
		{"boot flags", func(m memory) { m[446], m[446+48] = 0x80, 0x80 }, "1:1+9 5:11+9 6:31+9"},
		{"up to the last sector", func(m memory) { entry(m, 0, 0, 0x83, 1, 127) }, "1:1+127 5:11+9 6:31+9"},
		{"no sectors", func(m memory) { entry(m, 0, 0, 0x83, 1, 0) }, "5:11+9 6:31+9"},
		{"no sectors of the extended one", func(m memory) { entry(m, 0, 1, 5, 10, 0) }, "1:1+9"},
		{"record in the last sector", func(m memory) { entry(m, 10, 1, 5, 117, 1); m[127*512+510], m[127*512+511] = 0x55, 0xaa }, "1:1+9 5:11+9"},
		{"record without a signature", func(m memory) { m[30*512+510] = 0 }, "1:1+9 5:11+9"},
		{"link without sectors", func(m memory) { entry(m, 10, 1, 5, 20, 0) }, "1:1+9 5:11+9"},
		{"two links", func(m memory) { entry(m, 10, 2, 5, 30, 20) }, "1:1+9 5:11+9 6:31+9"},
		{"two extended ones", func(m memory) {
			entry(m, 0, 2, 0x0f, 111, 10)
			entry(m, 111, 0, 0x83, 1, 2)
			m[111*512+510], m[111*512+511] = 0x55, 0xaa
		}, "1:1+9 5:11+9 6:31+9 7:112+2"},
		{"a third entry", func(m memory) { entry(m, 30, 2, 0x83, 12, 8) }, "1:1+9 5:11+9 6:31+9 7:42+8"},
		{"a third entry behind the link's sectors", func(m memory) { entry(m, 30, 2, 0x83, 12, 9) }, "1:1+9 5:11+9 6:31+9"},
		{"a third entry up to the end", func(m memory) { entry(m, 10, 1, 5, 20, 200); entry(m, 30, 3, 0x83, 70, 10) }, "1:1+9 5:11+9 6:31+9 7:100+10"},
		{"a third entry behind it", func(m memory) { entry(m, 10, 1, 5, 20, 200); entry(m, 30, 3, 0x83, 70, 11) }, "1:1+9 5:11+9 6:31+9"},
	} {
		for _, sector := range []int64{512, 4096} {
			small := disk()
			tt.change(small)
			m := make(memory, 128*sector)
			for i := range int64(128) {
				copy(m[i*sector:], small[i*512:][:512])
			}
			list, err := mbr.Read(m, int64(len(m)), sector)
			var got []string
			for _, p := range list {
				got = append(got, fmt.Sprintf("%d:%d+%d", p.Number, p.Offset/sector, p.Size/sector))
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%s, sectors of %d: Read = %s, %v; want %s", tt.name, sector, got, err, tt.want)
			}
		}
	}
}

// unreadable is a disk with a sector that cannot be read.
type unreadable struct {
	memory
	sector int64
}

func (u unreadable) ReadBackAt(p []byte, off int64) (int, error) {
	if off == u.sector*512 {
		return 0, io.ErrClosedPipe
	}
	return u.memory.ReadBackAt(p, off)
}

// TestUnreadable: a record that cannot be read is an error, wherever it is in the chain.
func TestUnreadable(t *testing.T) {
	m := disk()
	for _, sector := range []int64{0, 10, 30} {
		if list, err := mbr.Read(unreadable{m, sector}, int64(len(m)), 512); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, mbr.ErrNone) {
			t.Errorf("Read with a bad sector %d = %v, %v", sector, list, err)
		}
	}
	if _, err := mbr.Read(m[:511], 511, 512); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read of 511 bytes = %v; want ErrUnexpectedEOF", err)
	}
}

// TestLongChain: a chain that never ends is bounded.
func TestLongChain(t *testing.T) {
	for _, links := range []int{256, 257} {
		m := make(memory, 2000*512)
		copy(m, disk()[:512])
		for i := range links {
			r := m[(10+i)*512:][:512]
			if i < links-1 {
				r[446+4] = 5
				binary.LittleEndian.PutUint32(r[446+8:], uint32(i+1))
				binary.LittleEndian.PutUint32(r[446+12:], 1)
			}
			r[510], r[511] = 0x55, 0xaa
		}
		_, err := mbr.Read(m, int64(len(m)), 512)
		if (err != nil) != (links > 256) || err != nil && !strings.Contains(err.Error(), "more than 256") {
			t.Errorf("Read of %d links = %v; want an error behind 256", links, err)
		}
	}
}

// records is a hostile medium: every read returns its next 512 bytes, wherever it is.
type records []byte

func (r *records) ReadBackAt(p []byte, _ int64) (int, error) {
	n := copy(p, *r)
	if *r = (*r)[n:]; n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func FuzzRead(f *testing.F) {
	m := disk()
	seed := slices.Concat(m[:512], m[10*512:11*512], m[30*512:31*512])
	f.Add([]byte(seed), int64(len(m)), int64(512))
	f.Add([]byte(seed), int64(8*len(m)), int64(4096))
	f.Fuzz(func(t *testing.T, data []byte, size, sector int64) {
		if sector != 4096 {
			sector = 512
		}
		list, err := mbr.Read((*records)(&data), size, sector)
		for _, p := range list {
			if err == nil && (p.Offset <= 0 || p.Size <= 0 || p.Offset > size-p.Size || p.Number < 1) {
				t.Errorf("partition %+v of a disk of %d bytes is accepted", p, size)
			}
		}
	})
}
