package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
	"updater/boot/barebox"
	"updater/boot/boottest"
	"updater/boot/efi"
	"updater/boot/sdboot"
	"updater/boot/tryboot"
	"updater/boot/uboot"
)

// Loaders whose state is files or variables. They lie in cells of one sector each, in front of the areas.

const (
	cellSize  = 512
	cellsSize = 16 << 10
)

// cells are small files, each in a sector: length of the name, the name, length of the data, the data. A change of one is
// old-or-new and durable when sync says so. Nothing orders two changes before that, as in FAT.
type cells struct{ area boot.Area }

func packCell(name string, data []byte) []byte {
	b := append([]byte{byte(len(name))}, name...)
	b = append(append(b, byte(len(data)), byte(len(data)>>8)), data...)
	if len(b) > cellSize {
		panic("a file of " + name + " is too long for a cell")
	}
	return append(b, make([]byte, cellSize-len(b))...)
}

// unpackCells returns the files in an area, and the cell of each.
func unpackCells(area []byte) (files map[string]string, at map[string]int64) {
	files, at = map[string]string{}, map[string]int64{}
	for off := 0; off < len(area); off += cellSize {
		c := area[off : off+cellSize]
		n := int(c[0])
		name, rest := string(c[1:1+n]), c[1+n:]
		if size := int(rest[0]) | int(rest[1])<<8; n > 0 && 2+size <= len(rest) {
			files[name], at[name] = string(rest[2:2+size]), int64(off)
		}
	}
	return files, at
}

// packCells returns the area of these files; those that are in old keep their cells.
func packCells(files map[string]string, old []byte) []byte {
	out := make([]byte, cellsSize)
	_, at := unpackCells(old)
	maps.DeleteFunc(at, func(name string, _ int64) bool { _, ok := files[name]; return !ok })
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, ok := at[name]; !ok {
			at[name] = freeCell(at)
		}
		copy(out[at[name]:], packCell(name, []byte(files[name])))
	}
	return out
}

// freeCell returns the first cell without a file.
func freeCell(at map[string]int64) int64 {
	off := int64(0)
	for slices.Contains(slices.Collect(maps.Values(at)), off) {
		off += cellSize
	}
	return off
}

func (c cells) read() (files map[string]string, at map[string]int64, err error) {
	b := make([]byte, cellsSize)
	if _, err := c.area.ReadAt(b, 0); err != nil {
		return nil, nil, err
	}
	files, at = unpackCells(b)
	return files, at, nil
}

func (c cells) list() ([]string, error) {
	files, _, err := c.read()
	return slices.Sorted(maps.Keys(files)), err
}

func (c cells) get(name string) ([]byte, error) {
	files, _, err := c.read()
	if err != nil {
		return nil, err
	}
	data, ok := files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return []byte(data), nil
}

func (c cells) put(name string, data []byte) error {
	_, at, err := c.read()
	if err != nil {
		return err
	}
	off, ok := at[name]
	if !ok {
		off = freeCell(at)
	}
	_, err = c.area.WriteAt(packCell(name, data), off)
	return err
}

func (c cells) drop(name string) error {
	_, at, err := c.read()
	if err != nil {
		return err
	}
	off, ok := at[name]
	if !ok {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	_, err = c.area.WriteAt(make([]byte, cellSize), off)
	return err
}

// vars are firmware variables: each change is durable when it returns.
type vars struct{ c cells }

func (v vars) List() ([]string, error)         { return v.c.list() }
func (v vars) Get(name string) ([]byte, error) { return v.c.get(name) }
func (v vars) Set(name string, d []byte) error { return errorsFirst(v.c.put(name, d), v.c.area.Sync) }
func (v vars) Delete(name string) error        { return errorsFirst(v.c.drop(name), v.c.area.Sync) }
func errorsFirst(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

// folder is an ESP. A file that is renamed keeps its cell, so that the new name is there or the old one.
type folder struct{ c cells }

func (f folder) List() ([]string, error)  { return f.c.list() }
func (f folder) Free() (int64, error)     { return 1 << 30, nil }
func (f folder) Remove(name string) error { return f.c.drop(name) }
func (f folder) Sync() error              { return f.c.area.Sync() }
func (f folder) Open(name string) (sdboot.File, error) {
	data, err := f.c.get(name)
	return boottest.OpenFile(data), err
}

func (f folder) Write(name string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return f.c.put(name, data)
}

func (f folder) Rename(from, to string) error {
	files, at, err := f.c.read()
	if err != nil {
		return err
	}
	if _, err := f.c.area.WriteAt(packCell(to, []byte(files[from])), at[from]); err != nil {
		return err
	}
	if old, ok := at[to]; ok {
		_, err = f.c.area.WriteAt(make([]byte, cellSize), old)
	}
	return err
}

// fileLoader is a loader with files in cells, and areas behind them.
func fileLoader(name string, fresh boottest.Disk, choose func(*boottest.Disk) string, open func(c cells, a []boot.Area, booted string) (boot.Backend, error)) *loader {
	l := &loader{name: name, areas: []area{{0, cellsSize}}}
	for _, a := range fresh.Areas {
		last := l.areas[len(l.areas)-1]
		l.areas = append(l.areas, area{(last.off + last.size + 4095) &^ 4095, int64(len(a))})
	}
	l.fresh = func() [][]byte {
		out := [][]byte{packCells(fresh.Files, make([]byte, cellsSize))}
		for _, a := range fresh.Areas {
			out = append(out, bytes.Clone(a))
		}
		return out
	}
	l.boot = func(areas [][]byte) string {
		files, _ := unpackCells(areas[0])
		d := &boottest.Disk{Areas: areas[1:], Files: files}
		slot := choose(d)
		areas[0] = packCells(d.Files, areas[0])
		return slot
	}
	l.open = func(a []boot.Area, booted string) (boot.Backend, error) { return open(cells{a[0]}, a[1:], booted) }
	l.canon = func(areas [][]byte) { // the cell of a file and the height of the generations change nothing
		files, _ := unpackCells(areas[0])
		areas[0] = packCells(lowered(files), nil)
	}
	return l
}

var generationOf = regexp.MustCompile(`((?:loader/entries|EFI/Linux)/updater-)(\d+)(-.*)`)

// lowered returns files with the generations of the entries of systemd-boot as low as their order allows.
func lowered(files map[string]string) map[string]string {
	var all []int
	for name := range files {
		if m := generationOf.FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[2])
			all = append(all, n)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > 0 && all[0] > 1 {
		all = slices.Insert(all, 0, 1) // the backend begins at 1 where it finds none
	}
	out := map[string]string{}
	for name, text := range files {
		if m := generationOf.FindStringSubmatch(name); m != nil {
			n, _ := strconv.Atoi(m[2])
			low := strconv.Itoa(slices.Index(all, n) + 1)
			name = m[1] + low + m[3]
			text = strings.Replace(text, "\nversion "+m[2]+"\n", "\nversion "+low+"\n", 1)
		}
		out[name] = text
	}
	return out
}

func efiLoader() *loader {
	esp := efi.Partition{Number: 1, Start: 2048, Size: 184320, GUID: "6f1b9f0a-50b7-4f0e-9d8c-0d6f0a5e1001"}
	targets := map[string]efi.Target{}
	for _, s := range slotNames {
		targets[s] = efi.Target{Partition: esp, Path: `\EFI\ab\` + s + `.efi`, Description: "ab-" + s}
	}
	return fileLoader("efi", boottest.Disk{Files: boottest.UEFIVars()}, boottest.UEFI, func(c cells, _ []boot.Area, booted string) (boot.Backend, error) {
		return efi.New(efi.Options{Vars: vars{c}, Slots: slotNames, Targets: targets}, booted)
	})
}

// trybootLoader keeps the flag over a power cut, unlike the firmware: more states, and State is right about them.
func trybootLoader() *loader {
	fresh := boottest.Disk{Areas: [][]byte{[]byte(boottest.Autoboot)}, Files: map[string]string{"tryboot": "\x00"}}
	return fileLoader("tryboot", fresh, boottest.Tryboot, func(c cells, a []boot.Area, booted string) (boot.Backend, error) {
		return tryboot.New(tryboot.Options{Area: a[0], Flag: boottest.TrybootFlag{Vars: vars{c}}, Slots: slotNames, Partition: map[string]int{"A": 2, "B": 3}}, booted)
	})
}

// bareboxLoader is barebox with its three buckets beside each other.
func bareboxLoader() *loader {
	le := binary.LittleEndian
	return &loader{
		name:  "barebox",
		areas: []area{{0, 3 * boottest.BucketStride}},
		unit:  boottest.BucketStride,
		fresh: func() [][]byte { return [][]byte{boottest.Buckets(3, 20, 3, 10)} },
		boot:  func(areas [][]byte) string { return boottest.Bootchooser(&boottest.Disk{Areas: areas}) },
		canon: func(areas [][]byte) { // nothing in a bucket without its checksum matters
			for b := range slices.Chunk(areas[0], boottest.BucketStride) {
				if le.Uint32(b[16:]) != crc32.ChecksumIEEE(b[24:44]) || le.Uint32(b[20:]) != crc32.ChecksumIEEE(b[8:20]) {
					copy(b, bytes.Repeat([]byte{0xee}, len(b)))
				}
			}
		},
		open: func(a []boot.Area, booted string) (boot.Backend, error) {
			return barebox.New(barebox.Options{
				Area: a[0], Stride: boottest.BucketStride, Magic: boottest.BucketMagic, Slots: slotNames,
				Targets: map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}, "B": {Attempts: 12, Priority: 16}},
			}, booted)
		},
	}
}

// sdbootLoader is systemd-boot: the highest generation that has boots left, one of which it subtracts in the name.
func sdbootLoader() *loader {
	files := map[string]string{"loader/loader.conf": "timeout 0\n"}
	for i, s := range []string{"B", "A"} {
		text := "title x\nlinux /vmlinuz\noptions updater.slot=" + s + "\n"
		files["loader/updater/"+s+".conf"] = text
		files[fmt.Sprintf("loader/entries/updater-%d-%s.conf", i+1, s)] = fmt.Sprintf("%ssort-key updater\nversion %d\n", text, i+1)
	}
	choose := func(d *boottest.Disk) string {
		type entry struct {
			name, slot     string
			version        int
			left, done     int
			counted, spent bool
		}
		var best entry
		for name, text := range d.Files {
			rest, ok := strings.CutPrefix(name, "loader/entries/")
			if !ok || !strings.HasSuffix(name, ".conf") {
				continue
			}
			e := entry{name: name}
			_, e.slot, _ = strings.Cut(text, "updater.slot=")
			e.slot = e.slot[:min(1, len(e.slot))]
			_, version, _ := strings.Cut(text, "\nversion ")
			fmt.Sscan(version, &e.version)
			if _, counter, ok := strings.Cut(strings.TrimSuffix(rest, ".conf"), "+"); ok {
				n, _ := fmt.Sscanf(counter, "%d-%d", &e.left, &e.done)
				e.counted = n > 0
				e.spent = e.counted && e.left == 0
			}
			if best.name == "" || best.spent && !e.spent || best.spent == e.spent && (e.version > best.version || e.version == best.version && e.name > best.name) {
				best = e
			}
		}
		if best.counted && best.left > 0 {
			base, _, _ := strings.Cut(best.name, "+")
			d.Files[fmt.Sprintf("%s+%d-%d.conf", base, best.left-1, best.done+1)] = d.Files[best.name]
			delete(d.Files, best.name)
		}
		return best.slot
	}
	return fileLoader("sdboot", boottest.Disk{Files: files}, choose, func(c cells, _ []boot.Area, booted string) (boot.Backend, error) {
		return sdboot.New(sdboot.Options{Dir: folder{c}, Slots: slotNames}, booted)
	})
}

// sdbootImagesLoader is systemd-boot with unified kernel images.
func sdbootImagesLoader() *loader {
	return fileLoader("sdboot, images", boottest.Disk{Files: boottest.ImageFiles()}, boottest.SystemdBootImages, func(c cells, _ []boot.Area, booted string) (boot.Backend, error) {
		return sdboot.New(sdboot.Options{Dir: folder{c}, Slots: slotNames}, booted)
	})
}

// bootcountLoader is U-Boot's boot counting with an altbootcmd that falls back to the other slot.
func bootcountLoader() *loader {
	other := map[string]string{"A": "B", "B": "A"}
	vars := []string{"altbootcmd=run back", "active=A", "upgrade_available=0", "bootcount=0", "bootlimit=1", "last=x=y"}
	return ubootScript("uboot, bootcount", vars, true, uboot.Options{Slots: slotNames, Dialect: uboot.Bootcount}, func(e ubootVars) (chosen string, save bool) {
		active := e.get("active")
		if e.get("upgrade_available") != "1" {
			return active, false
		}
		e.set("bootcount", fmt.Sprint(e.number("bootcount")+1))
		if e.number("bootcount") > e.number("bootlimit") {
			active = other[active]
			e.set("active", active)
			e.set("upgrade_available", "0")
			e.set("bootcount", "0")
		}
		return active, true
	})
}
