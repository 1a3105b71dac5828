package efi_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/efi"
)

var esp = efi.Partition{Number: 1, Start: 2048, Size: 184320, GUID: "6f1b9f0a-50b7-4f0e-9d8c-0d6f0a5e1001"}

var targets = map[string]efi.Target{
	"A": {Partition: esp, Path: `\EFI\ab\A.efi`, Description: "ab-A"},
	"B": {Partition: esp, Path: `\EFI\ab\B.efi`, Description: "ab-B"},
}

// option is a boot option laid out by hand: the specification's nodes, not the package's.
func option(attributes uint32, description, path string) string {
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

func fresh() map[string]string {
	return map[string]string{
		"Boot0000": option(1, "UiApp", ""), "Boot0003": option(1, "ab-A", `\EFI\ab\A.efi`), "Boot0A02": option(1, "ab-B", `\EFI\AB\b.EFI`),
		"Boot0005":  option(1, "other", `\EFI\other.efi`),
		"BootOrder": "\x03\x00\x02\x0a\x05\x00\x00\x00", "Timeout": "\x00\x00", "BootCurrent": "\x02\x0a",
	}
}

// firmware is the boot manager: BootNext once, deleted before it starts, else BootOrder.
func firmware(d *boottest.Disk) string {
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

func open(m *boottest.Medium, booted string) (boot.Backend, error) {
	return efi.New(efi.Options{Vars: boottest.Vars{M: m}, Slots: []string{"A", "B"}, Targets: targets}, booted)
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return boottest.Disk{Files: fresh()} },
		Open:  open,
		Boot:  firmware,
		Others: func(d boottest.Disk) []string {
			var rest []string
			for order := []byte(d.Files["BootOrder"]); len(order) >= 2; order = order[2:] {
				if n := fmt.Sprintf("%04X", binary.LittleEndian.Uint16(order)); n != "0003" && n != "0A02" {
					rest = append(rest, n)
				}
			}
			return append(rest, d.Files["Boot0000"], d.Files["Boot0005"], d.Files["Timeout"])
		},
		AlwaysBoots: true,
	})
}

// Without boot options, as after a firmware update, they are made as the specification has them.
func TestBootOptionsAreMade(t *testing.T) {
	m := boottest.New(boottest.Disk{Files: map[string]string{"Boot0000": option(1, "UiApp", ""), "BootOrder": "\x00\x00", "Boot0001": option(0, "ab-A", `\EFI\ab\A.efi`)}})
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.State(t.Context())
	if err != nil || st.Next != "" || !slices.ContainsFunc(st.Findings, func(f boot.Finding) bool { return strings.Contains(f.Evidence, "no boot option") }) {
		t.Errorf("State = %+v, %v; want the missing options", st, err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := m.Disk()
	if got, want := d.Files["Boot0002"], option(1, "ab-A", `\EFI\ab\A.efi`); got != want {
		t.Errorf("Boot0002 is %x; want %x", got, want)
	}
	if got := firmware(&d); got != "A" {
		t.Errorf("after Repair the firmware starts %q; want the running slot", got)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if d = m.Disk(); firmware(&d) != "B" || firmware(&d) != "A" {
		t.Error("after Activate the firmware does not start B once, then A")
	}
}

func TestRunning(t *testing.T) {
	for current, want := range map[string]string{"\x02\x0a": "B", "\x03\x00": "A", "\x05\x00": "", "": ""} {
		d := boottest.Disk{Files: fresh()}
		d.Files["BootCurrent"] = current
		if current == "" {
			delete(d.Files, "BootCurrent")
		}
		got, err := efi.Running(efi.Options{Vars: boottest.Vars{M: boottest.New(d)}, Slots: []string{"A", "B"}, Targets: targets})
		if err != nil || got != want {
			t.Errorf("BootCurrent %x: Running = %q, %v; want %q", current, got, err, want)
		}
	}
}

func TestBadTarget(t *testing.T) {
	_, err := efi.New(efi.Options{Slots: []string{"A"}, Targets: map[string]efi.Target{"A": {Partition: efi.Partition{GUID: "x"}}}}, "")
	if !errors.Is(err, boot.ErrState) {
		t.Errorf("New = %v; want ErrState", err)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add([]byte(option(1, "ab-A", `\EFI\ab\A.efi`)), []byte("\x03\x00"), []byte("\x00\x00"))
	f.Add([]byte{1, 0, 0, 0, 9, 9}, []byte("\x03"), []byte{})
	f.Fuzz(func(t *testing.T, opt, order, next []byte) {
		m := boottest.New(boottest.Disk{Files: map[string]string{"Boot0003": string(opt), "BootOrder": string(order), "BootNext": string(next)}})
		b, err := open(m, "A")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.MarkGood(t.Context(), "A"); err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Boots[2] != "A" {
			t.Fatalf("after mark good State = %+v, %v", st, err)
		}
	})
}
