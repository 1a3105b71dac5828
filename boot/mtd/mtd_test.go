package mtd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/mtd"
	"updater/boot/uboot"
	"updater/internal/crashdisk/bootdisk"
)

const block = 2048

// flash models flash on a medium of the suite: an erase sets bits, a write clears them.
type flash struct {
	boot.Area
	bad    []int64
	erased *int
}

func (f flash) EraseSize() int64            { return block }
func (f flash) Bad(off int64) (bool, error) { return slices.Contains(f.bad, off), nil }
func (f flash) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadBackAt(p, off)
}

func (f flash) Erase(off int64) error {
	*f.erased++
	if _, err := f.Area.WriteAt(bytes.Repeat([]byte{0xff}, block), off); err != nil {
		return err
	}
	return f.Sync()
}

func (f flash) WriteAt(p []byte, off int64) (int, error) {
	old := make([]byte, len(p))
	if _, err := f.Area.ReadAt(old, off); err != nil {
		return 0, err
	}
	for i := range p {
		old[i] &= p[i]
	}
	if n, err := f.Area.WriteAt(old, off); err != nil {
		return n, err
	}
	return len(p), f.Sync()
}

// environment returns a copy of U-Boot's environment that fills a block.
func environment(flag byte, vars ...string) []byte {
	out := bytes.Repeat([]byte{0xff}, block)
	copy(out[5:], strings.Join(vars, "\x00")+"\x00\x00")
	out[4] = flag
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[5:]))
	return out
}

func open(m *boottest.Medium, booted string) (boot.Backend, error) {
	f := flash{Area: m.Areas()[0], erased: new(int), bad: []int64{0}}
	one, err := mtd.New(f, 0, block, 2)
	if err != nil {
		return nil, err
	}
	two, err := mtd.New(f, -block, block, 0)
	if err != nil {
		return nil, err
	}
	return uboot.New(uboot.Options{Areas: []boot.Area{one, two}, Flags: uboot.Boolean, Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, booted)
}

// The contract on flash with a bad block, two copies in blocks of their own, and power cuts inside an erase.
func TestContract(t *testing.T) {
	vars := []string{"altbootcmd=x", "active=A", "upgrade_available=0", "bootcount=0", "bootlimit=3"}
	copies := func(d *boottest.Disk) [2][]byte { return [2][]byte{d.Areas[0][block : 2*block], d.Areas[0][2*block:]} }
	boottest.Contract(t, boottest.Rig{
		Volatile: bootdisk.New,
		Fresh: func(*testing.T) boottest.Disk {
			return boottest.Disk{Areas: [][]byte{slices.Concat(make([]byte, block), environment(1, vars...), environment(0, vars...))}}
		},
		Open: open,
		Caps: boot.Caps{MaxTries: 9, SwitchAtomic: true},
		Recovery: func(d boottest.Disk) bool {
			c := copies(&d)
			use := c[0]
			if c[0][4] == 0 && c[1][4] == 1 {
				use = c[1]
			}
			return bytes.Contains(use[5:], []byte("recovery=1\x00"))
		},
		Boot: func(d *boottest.Disk) string { // U-Boot with boot counting, on the copy in use
			c := copies(d)
			use := -1
			for i, e := range c {
				if binary.LittleEndian.Uint32(e) == crc32.ChecksumIEEE(e[5:]) && (use < 0 || c[use][4] == 0 && e[4] != 0) {
					use = i
				}
			}
			if use < 0 {
				return ""
			}
			text, _, _ := strings.Cut(string(c[use][5:]), "\x00\x00")
			v := map[string]string{}
			var order []string
			for s := range strings.SplitSeq(text, "\x00") {
				k, x, _ := strings.Cut(s, "=")
				v[k], order = x, append(order, k)
			}
			active := v["active"]
			if v["upgrade_available"] != "1" {
				return active
			}
			if v["bootcount"] = string(v["bootcount"][0] + 1); v["bootcount"] > v["bootlimit"] {
				active = map[string]string{"A": "B", "B": "A"}[active]
				v["active"], v["upgrade_available"], v["bootcount"] = active, "0", "0"
			}
			var now []string
			for _, k := range order {
				now = append(now, k+"="+v[k])
			}
			copy(c[1-use], environment(1, now...))
			c[use][4] = 0
			return active
		},
		AlwaysBoots: true,
	})
}

// badPage is flash with a page that cannot be read until its block is erased.
type badPage struct {
	flash
	off    int64
	healed *bool
}

func (f badPage) ReadAt(p []byte, off int64) (int, error) {
	const page = 512
	if !*f.healed && off < f.off+page && off+int64(len(p)) > f.off {
		return 0, unix.EBADMSG
	}
	return f.flash.ReadAt(p, off)
}

func (f badPage) Erase(off int64) error {
	*f.healed = true
	return f.flash.Erase(off)
}

// A page that cannot be read is rewritten by a write that covers it; the rest of the block survives.
func TestUnreadablePage(t *testing.T) {
	m := boottest.NewMedium(bytes.Repeat([]byte{0xf0}, 2*block))
	f := badPage{flash{Area: m.Areas()[0], erased: new(int)}, block + 512, new(bool)}
	a, err := mtd.New(f, block, 1024, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.WriteAt([]byte{1}, 0); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("WriteAt beside the page = %v; want EBADMSG", err)
	}
	if err := boot.WriteVerified(a, bytes.Repeat([]byte{7}, 1024), 0); err != nil {
		t.Fatal(err)
	}
	if got := m.Snapshot()[0]; got[block] != 7 || got[block+1023] != 7 || got[block+1024] != 0xf0 || got[block-1] != 0xf0 {
		t.Error("other bytes of the flash have changed")
	}
}

// Clearing bits erases nothing. Other changes erase one block and preserve the rest of it.
func TestErasesOnlyWhatItMust(t *testing.T) {
	m := boottest.NewMedium(bytes.Repeat([]byte{0xf0}, 3*block))
	f := flash{Area: m.Areas()[0], erased: new(int)}
	a, err := mtd.New(f, block, block+10, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		b     byte
		off   int64
		erase int
	}{{0x10, 5, 0}, {0xf0, 7, 0}, {0x01, block + 3, 1}} {
		before := *f.erased
		if _, err := a.WriteAt([]byte{c.b}, c.off); err != nil || *f.erased-before != c.erase {
			t.Errorf("WriteAt(%#x, %d) = %v, %d blocks erased; want %d", c.b, c.off, err, *f.erased-before, c.erase)
		}
	}
	writes := m.Writes()
	if _, err := a.WriteAt([]byte{0xf0, 0x10, 0xf0}, 4); err != nil || m.Writes() > writes {
		t.Errorf("WriteAt of the same bytes = %v and wrote %d sectors", err, m.Writes()-writes)
	}
	if n, err := a.WriteAt([]byte{1, 2}, block+9); err == nil || n > 0 {
		t.Errorf("WriteAt over the end = %d, %v", n, err)
	}
	if n, err := a.ReadAt(make([]byte, block+20), 0); n != block+10 || err != io.EOF {
		t.Errorf("ReadAt over the end = %d, %v; want %d bytes and EOF", n, err, block+10)
	}
	want := bytes.Repeat([]byte{0xf0}, 3*block)
	want[block+5], want[2*block+3] = 0x10, 0x01
	if got := m.Snapshot()[0]; !bytes.Equal(got, want) {
		t.Error("other bytes of the flash have changed")
	}
	for _, c := range [][3]int64{{1, 10, 0}, {0, 0, 0}, {2 * block, block + 1, 0}, {0, 1 << 40, 0}} {
		if _, err := mtd.New(f, c[0], c[1], c[2]); err == nil {
			t.Errorf("New(%v) is no error", c)
		}
	}
	f.bad = []int64{0, block, 2 * block}
	if _, err := mtd.New(f, 0, block, 3); err == nil {
		t.Error("New without a good block is no error")
	}
}

// A file that is not flash is refused, and missing flash is an error.
func TestOpenOtherDevice(t *testing.T) {
	var open [5]int
	for i := range open {
		for path, want := range map[string]error{"/dev/null": unix.ENOTTY, "/dev/mtd99": unix.ENOENT} {
			if d, err := mtd.Open(path, true); !errors.Is(err, want) {
				t.Errorf("Open(%s) = %v, %v; want %v", path, d, err, want)
			}
		}
		open[i] = boottest.OpenFiles(t)
	}
	if open[1] != open[4] {
		t.Errorf("open files grow: %v", open)
	}
}

// questionable is flash that cannot report its bad blocks.
type questionable struct{ flash }

func (questionable) Bad(int64) (bool, error) { return false, unix.EIO }

// TestAreaFailures: a read, a write or an erase that fails is an error that names the area and the offset, wherever it is in an access that
// spans blocks; nothing outside of the area is read or written.
func TestAreaFailures(t *testing.T) {
	tried := 0
	for n := 1; ; n++ {
		m := boottest.NewMedium(bytes.Repeat([]byte{0x0f}, 3*block))
		f := flash{Area: m.Areas()[0], erased: new(int)}
		a, err := mtd.New(f, 0, 2*block, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.FailAt = m.Operations() + n
		_, err = a.WriteAt(bytes.Repeat([]byte{0xf0}, block), block/2)
		ended := m.Operations() < m.FailAt
		m.FailAt = 0
		if got := m.Snapshot()[0]; err == nil { // the overwritten bytes need not be readable
			want := slices.Concat(bytes.Repeat([]byte{0x0f}, block/2), bytes.Repeat([]byte{0xf0}, block), bytes.Repeat([]byte{0x0f}, 3*block/2))
			if !bytes.Equal(got, want) {
				t.Errorf("operation %d failed: WriteAt = nil, but the flash does not hold what was written", n)
			}
		}
		if ended {
			if err != nil {
				t.Errorf("WriteAt without a failure = %v", err)
			}
			break
		}
		if tried++; err != nil && (!errors.Is(err, boottest.ErrInjected) || !strings.Contains(err.Error(), "writing "+a.String()+" at ")) {
			t.Errorf("operation %d failed: WriteAt = %v", n, err)
		}
	}
	if tried < 4 {
		t.Errorf("only %d operations were tried", tried)
	}
	m := boottest.NewMedium(bytes.Repeat([]byte{0x0f}, 3*block))
	healthy := flash{Area: m.Areas()[0], erased: new(int)}
	a, err := mtd.New(badPage{healthy, block + 512, new(bool)}, 0, 2*block, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := a.ReadAt(make([]byte, 2*block), 0); n != block || !errors.Is(err, unix.EBADMSG) || !strings.Contains(err.Error(), "at 2048") {
		t.Errorf("ReadAt over a page that cannot be read = %d, %v", n, err)
	}
	if _, err := a.WriteAt([]byte{1, 2}, 2*block-1); err == nil {
		t.Error("a write beyond the end succeeded")
	}
	if _, err := a.WriteAt([]byte{1}, -1); err == nil {
		t.Error("a write before the beginning succeeded")
	}
	if _, err := mtd.New(questionable{healthy}, 0, block, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("New = %v; want EIO", err)
	}
	clear := boottest.NewMedium(bytes.Repeat([]byte{0x0f}, block))
	whole, err := mtd.New(flash{Area: clear.Areas()[0], erased: new(int)}, 0, block, 0)
	if err != nil {
		t.Fatal(err)
	}
	clear.FailAt = clear.Operations() + 3 // behind the reads of a write that clears bits
	if _, err := whole.WriteAt([]byte{0x01}, 7); !errors.Is(err, boottest.ErrInjected) {
		t.Errorf("a write that clears bits and fails = %v", err)
	}
	behind, err := mtd.New(badPage{healthy, 0, new(bool)}, 0, block, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := behind.WriteAt([]byte{0xf0}, block/2); !errors.Is(err, unix.EBADMSG) {
		t.Errorf("WriteAt behind a page that cannot be read = %v; want EBADMSG", err)
	}
	if got := m.Snapshot()[0]; !bytes.Equal(got, bytes.Repeat([]byte{0x0f}, 3*block)) {
		t.Error("the flash has changed")
	}
}

// TestAreaOfBlocks: an area uses the good blocks of its region and no others.
func TestAreaOfBlocks(t *testing.T) {
	worn := flash{Area: boottest.NewMedium(make([]byte, 3*block)).Areas()[0], bad: []int64{0}, erased: new(int)}
	for _, c := range []struct {
		off, size, blocks int64
		ok                bool
	}{{0, block, 1, false}, {0, block, 2, true}, {0, 2 * block, 3, true}, {block, 2 * block, 0, true},
		{-block, block, 0, true}, {-4 * block, block, 0, false}, {0, 3 * block, 3, false}} {
		if a, err := mtd.New(worn, c.off, c.size, c.blocks); (err == nil) != c.ok || c.ok && a.Size() != c.size {
			t.Errorf("New(%d, %d, %d) = %v; want success %v", c.off, c.size, c.blocks, err, c.ok)
		}
	}
	worn.bad = nil
	if _, err := mtd.New(worn, 0, 3*block, 0); err != nil {
		t.Errorf("an area of all the flash: %v", err)
	}
}
