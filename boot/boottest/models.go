package boottest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
)

// Models of firmware that chooses a slot itself, written from the specification or the boot loader's source, with the disk
// that a test begins with: both slots good, A boots next. The contract tests of the backends and test/powercut share them.

// BootOption returns a boot option (UEFI specification, 3.1.3) with a partition and a path on it.
func BootOption(attributes uint32, description, path string) string {
	u := func(s string) []byte {
		var b []byte
		for _, c := range s + "\x00" {
			b = append(b, byte(c), 0)
		}
		return b
	}
	guid, _ := hex.DecodeString("0a9f1b6fb7500e4f9d8c0d6f0a5e1001")
	hd := []byte{4, 1, 42, 0, 1, 0, 0, 0}
	hd = binary.LittleEndian.AppendUint64(hd, 2048)
	hd = binary.LittleEndian.AppendUint64(hd, 184320)
	hd = append(append(hd, guid...), 2, 2)
	file := append([]byte{4, 4, byte(4 + len(u(path))), 0}, u(path)...)
	dp := append(append(hd, file...), 0x7f, 0xff, 4, 0)
	out := binary.LittleEndian.AppendUint32(nil, attributes)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(dp)))
	return string(append(append(out, u(description)...), dp...))
}

// UEFIVars returns the variables of a firmware that also has foreign boot options. Slot B is running.
func UEFIVars() map[string]string {
	return map[string]string{
		"Boot0000": BootOption(1, "UiApp", ""), "Boot0003": BootOption(1, "ab-A", `\EFI\ab\A.efi`), "Boot0A02": BootOption(1, "ab-B", `\EFI\AB\b.EFI`),
		"Boot0005":  BootOption(1, "other", `\EFI\other.efi`),
		"BootOrder": "\x03\x00\x02\x0a\x05\x00\x00\x00", "Timeout": "\x00\x00", "BootCurrent": "\x02\x0a",
	}
}

// UEFI models the boot manager: BootNext once, deleted before it is started, otherwise BootOrder.
func UEFI(d *Disk) string {
	slot := func(n uint16) string {
		o := strings.ToLower(strings.ReplaceAll(d.Files[fmt.Sprintf("Boot%04X", n)], "\x00", ""))
		switch {
		case strings.Contains(o, `\efi\ab\a.efi`):
			return "A"
		case strings.Contains(o, `\efi\ab\b.efi`):
			return "B"
		}
		return ""
	}
	if next := d.Files["BootNext"]; next != "" {
		delete(d.Files, "BootNext")
		if s := slot(binary.LittleEndian.Uint16([]byte(next))); s != "" {
			return s
		}
	}
	for order := []byte(d.Files["BootOrder"]); len(order) >= 2; order = order[2:] {
		if s := slot(binary.LittleEndian.Uint16(order)); s != "" {
			return s
		}
	}
	return ""
}

// Autoboot is an autoboot.txt of a Raspberry Pi with slot A in partition 2 and B in 3.
const Autoboot = "# ours\n[all]\ntryboot_a_b=1\nboot_partition=2\n[none]\nboot_partition=7\n[tryboot]\nboot_partition=3\n"

// Tryboot models the firmware of a Raspberry Pi: it boots the partition in [all] of the first area, or the one in [tryboot]
// if the flag, the file tryboot, is set. It clears the flag first.
func Tryboot(d *Disk) string {
	section, part := "[all]", map[string]string{}
	for line := range strings.Lines(string(d.Areas[0])) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		} else if v, ok := strings.CutPrefix(line, "boot_partition="); ok {
			part[section] = v
		}
	}
	section = "[all]"
	if d.Files["tryboot"] == "\x01" {
		section, d.Files["tryboot"] = "[tryboot]", "\x00"
	}
	switch part[section] {
	case "2":
		return "A"
	case "3":
		return "B"
	}
	return ""
}

// TrybootFlag implements tryboot.Flag for [Tryboot].
type TrybootFlag struct {
	Vars interface {
		Get(name string) ([]byte, error)
		Set(name string, data []byte) error
	}
}

// Get reports whether the flag is set.
func (f TrybootFlag) Get() (bool, error) {
	v, err := f.Vars.Get("tryboot")
	return len(v) > 0 && v[0] == 1, err
}

// Set sets or clears the flag.
func (f TrybootFlag) Set(on bool) error {
	value := []byte{0}
	if on {
		value[0] = 1
	}
	return f.Vars.Set("tryboot", value)
}

// The parameters of the state of [Bootchooser].
const (
	BucketStride = 1024 // bytes
	BucketMagic  = 0x4d433230
)

// Buckets returns the three buckets of a barebox state. The values are attempts and priority of A and of B; a foreign
// variable lies between them.
func Buckets(values ...uint32) []byte {
	b := make([]byte, BucketStride)
	data := make([]byte, 20)
	for i, at := range []int{0, 4, 12, 16} {
		binary.LittleEndian.PutUint32(data[at:], values[i])
	}
	copy(data[8:], "last")
	le := binary.LittleEndian
	le.PutUint32(b, 0x2354fdf3)
	le.PutUint32(b[4:], 16+20)
	le.PutUint32(b[8:], BucketMagic)
	le.PutUint16(b[14:], 20)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(data))
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[8:20]))
	copy(b[24:], data)
	return []byte(strings.Repeat(string(b), 3))
}

// Bootchooser models barebox: it uses the first valid bucket, chooses the highest priority with attempts left, and spends one.
// It returns "" where barebox would fall back to its defaults.
func Bootchooser(d *Disk) string {
	le := binary.LittleEndian
	for i := range 3 {
		b := d.Areas[0][i*BucketStride:]
		if le.Uint32(b) != 0x2354fdf3 || le.Uint32(b[20:]) != crc32.ChecksumIEEE(b[8:20]) || le.Uint32(b[16:]) != crc32.ChecksumIEEE(b[24:44]) {
			continue
		}
		v := []uint32{le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[36:]), le.Uint32(b[40:])}
		a, bb := v[0] > 0 && v[1] > 0, v[2] > 0 && v[3] > 0
		name := ""
		switch {
		case a && (!bb || v[1] >= v[3]):
			name, v[0] = "A", v[0]-1
		case bb:
			name, v[2] = "B", v[2]-1
		}
		copy(d.Areas[0], Buckets(v...))
		return name
	}
	return ""
}

// GRUBScript models RAUC's grub.cfg: it chooses the first slot of ORDER with OK=1 and TRY=0 and sets its TRY. If there is none
// it clears all TRY. It treats the first area, the grubenv block, as lines.
func GRUBScript(areas [][]byte) string {
	lines := strings.Split(string(areas[0]), "\n")
	get := func(name string) string {
		for _, l := range lines {
			if v, ok := strings.CutPrefix(l, name+"="); ok {
				return v
			}
		}
		return ""
	}
	set := func(name, old, new string) {
		areas[0] = bytes.Replace(areas[0], []byte("\n"+name+"="+old+"\n"), []byte("\n"+name+"="+new+"\n"), 1)
	}
	for s := range strings.FieldsSeq(get("ORDER")) {
		if get(s+"_OK") == "1" && get(s+"_TRY") == "0" {
			set(s+"_TRY", "0", "1")
			return s
		}
	}
	set("A_TRY", "1", "0")
	set("B_TRY", "1", "0")
	return ""
}
