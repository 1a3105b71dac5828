package powercut

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
	"updater/boot/uboot"
)

// loader is a boot loader: the place of its state, and how it chooses. The choice is written from the loader's
// script, independently of our backend.
type loader struct {
	name  string
	areas []area               // in the disk; each begins a page
	unit  int                  // bytes of an area that the loader itself writes before it flushes; 0 is the area
	canon func(areas [][]byte) // replaces a state by one that every loader and backend treats the same; nil changes nothing
	long  bool                 // its changes are long: a seed has as many states, or takes as long, as several seeds of the others
	fresh func() [][]byte
	// boot chooses a slot, spends its try in place and returns its name, "" for none.
	boot func(areas [][]byte) string
	open func(areas []boot.Area, booted string) (boot.Backend, error)
}

type area struct{ off, size int64 }

var slotNames = []string{"A", "B"}

func loaders() []*loader {
	list := []*loader{grubLoader(), ubootLoader(), grubTriesLoader(), bootcountLoader(), androidLoader(), bareboxLoader()}
	for _, l := range []*loader{trybootLoader(), efiLoader(), sdbootLoader(), sdbootImagesLoader(), gptLoader()} {
		l.long = true
		list = append(list, l)
	}
	return list
}

// grubLoader is RAUC's grub.cfg: the first slot of ORDER with OK=1 and TRY=0, whose TRY it sets; else it clears the
// tries and boots nothing.
func grubLoader() *loader {
	return &loader{
		name:  "grub",
		areas: []area{{0, 1024}},
		fresh: func() [][]byte {
			s := "# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=0\nsaved_entry=x\n"
			return [][]byte{[]byte(s + strings.Repeat("#", 1024-len(s)))}
		},
		open: func(a []boot.Area, booted string) (boot.Backend, error) {
			return grub.New(grub.Options{Area: a[0], Slots: slotNames}, booted)
		},
		boot: boottest.GRUBScript,
	}
}

const ubootSize = 2048

// ubootLoader is RAUC's boot script on U-Boot with a redundant environment.
func ubootLoader() *loader { return ubootWith(true) }

// ubootWith can leave the checksum out, as a loader that trusts any copy with the higher flag.
func ubootWith(checksum bool) *loader {
	// The filler moves the variables of the choice over the border of a sector.
	vars := []string{"aa=" + strings.Repeat("x", 485), "BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3", "zz=y"}
	return ubootScript("uboot", vars, checksum, uboot.Options{Slots: slotNames}, func(e ubootVars) (chosen string, save bool) {
		for s := range strings.FieldsSeq(e.get("BOOT_ORDER")) {
			if n := e.number("BOOT_" + s + "_LEFT"); n > 0 {
				e.set("BOOT_"+s+"_LEFT", strconv.Itoa(n-1))
				return s, true
			}
		}
		for _, s := range slotNames {
			e.set("BOOT_"+s+"_LEFT", "3")
		}
		return "", true
	})
}

// ubootVars are the variables of the environment that a script runs in.
type ubootVars []string

func (v ubootVars) find(name string) int {
	return slices.IndexFunc(v, func(s string) bool { return strings.HasPrefix(s, name+"=") })
}

func (v ubootVars) get(name string) string {
	if i := v.find(name); i >= 0 {
		return v[i][len(name)+1:]
	}
	return ""
}

func (v ubootVars) number(name string) int {
	n, _ := strconv.Atoi(v.get(name))
	return n
}

// set changes a variable that is there.
func (v ubootVars) set(name, value string) {
	if i := v.find(name); i >= 0 {
		v[i] = name + "=" + value
	}
}

// ubootScript is a script on a redundant environment with these variables.
func ubootScript(name string, fresh []string, checksum bool, o uboot.Options, script func(ubootVars) (chosen string, save bool)) *loader {
	env := func(flag byte, vars []string) []byte {
		out := bytes.Repeat([]byte{0xff}, ubootSize)
		copy(out[5:], strings.Join(vars, "\x00")+"\x00\x00")
		out[4] = flag
		binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[5:]))
		return out
	}
	valid := func(a []byte) bool { return binary.LittleEndian.Uint32(a) == crc32.ChecksumIEEE(a[5:]) }
	return &loader{
		name:  name,
		areas: []area{{0, ubootSize}, {8192, ubootSize}},
		canon: func(areas [][]byte) { // the flags count up for ever, and only their order matters; a copy without a valid checksum does not matter
			flags := [2]byte{1, 1}
			if valid(areas[0]) && valid(areas[1]) {
				for i := range flags {
					if newer(areas[i][4], areas[1-i][4]) {
						flags[i] = 2
					}
				}
			}
			for i, a := range areas {
				switch {
				case !valid(a):
					copy(a, bytes.Repeat([]byte{0xee}, len(a)))
				case a[4] != flags[i]:
					a[4] = flags[i]
					binary.LittleEndian.PutUint32(a, crc32.ChecksumIEEE(a[5:]))
				}
			}
		},
		fresh: func() [][]byte { return [][]byte{env(1, fresh), env(2, fresh)} },
		open: func(a []boot.Area, booted string) (boot.Backend, error) {
			o := o
			o.Areas = a
			return uboot.New(o, booted)
		},
		boot: func(areas [][]byte) string {
			use := -1
			for i, a := range areas {
				if checksum && !valid(a) {
					continue
				}
				if use < 0 || newer(a[4], areas[use][4]) {
					use = i
				}
			}
			if use < 0 {
				return ""
			}
			text, _, _ := strings.Cut(string(areas[use][5:]), "\x00\x00")
			vars := ubootVars(strings.Split(text, "\x00"))
			chosen, save := script(vars)
			if save {
				areas[1-use] = env(areas[use][4]+1, vars)
			}
			return chosen
		},
	}
}

// newer compares the flags of two copies, which wrap (U-Boot, env/common.c, env_check_redund).
func newer(a, b byte) bool {
	switch {
	case a == 0 && b == 255:
		return true
	case a == 255 && b == 0:
		return false
	}
	return a > b
}

// read reads the boot state from a disk.
func (l *loader) read(disk []byte) [][]byte {
	var areas [][]byte
	for _, a := range l.areas {
		areas = append(areas, slices.Clone(disk[a.off:a.off+a.size]))
	}
	return areas
}

// chain returns the slots that the loader would boot when no system ever comes up, in turn.
func (l *loader) chain(disk []byte) []string {
	areas := l.read(disk)
	var list []string
	for range 10 {
		list = append(list, l.boot(areas))
	}
	return list
}

// start is one start of the device: the loader chooses and spends a try on the disk.
func (l *loader) start(disk []byte) string {
	areas := l.read(disk)
	chosen := l.boot(areas)
	for i, a := range l.areas {
		copy(disk[a.off:a.off+a.size], areas[i])
	}
	return chosen
}
