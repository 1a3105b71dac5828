package efi_test

import (
	"encoding/binary"
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

func open(m *boottest.Medium, booted string) (boot.Backend, error) {
	return efi.New(efi.Options{Vars: boottest.Vars{M: m}, Slots: []string{"A", "B"}, Targets: targets}, booted)
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return boottest.Disk{Files: boottest.UEFIVars()} },
		Open:  open,
		Boot:  boottest.UEFI,
		Caps:  boot.Caps{MaxTries: 1, SwitchAtomic: true},
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

// Missing boot options, as after a firmware update, are created.
func TestBootOptionsAreMade(t *testing.T) {
	m := boottest.New(boottest.Disk{Files: map[string]string{
		"Boot0000":  boottest.BootOption(1, "UiApp", ""),
		"Boot0001":  boottest.BootOption(0, "ab-A", `\EFI\ab\A.efi`),
		"BootOrder": "\x00\x00",
	}})
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.State(t.Context())
	missing := func(f boot.Finding) bool { return strings.Contains(f.Evidence, "no boot option") }
	if err != nil || st.Next != "" || !slices.ContainsFunc(st.Findings, missing) {
		t.Errorf("State = %+v, %v; want the missing options", st, err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := m.Disk()
	if got, want := d.Files["Boot0002"], boottest.BootOption(1, "ab-A", `\EFI\ab\A.efi`); got != want {
		t.Errorf("Boot0002 is %x; want %x", got, want)
	}
	if got := boottest.UEFI(&d); got != "A" {
		t.Errorf("after Repair the firmware starts %q; want the running slot", got)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if d = m.Disk(); boottest.UEFI(&d) != "B" || boottest.UEFI(&d) != "A" {
		t.Error("after Activate the firmware does not start B once, then A")
	}
}

func TestRunning(t *testing.T) {
	for current, want := range map[string]string{"\x02\x0a": "B", "\x03\x00": "A", "\x05\x00": "", "": ""} {
		d := boottest.Disk{Files: boottest.UEFIVars()}
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

// Several options may start the same slot: none of them is left in BootOrder or BootNext.
func TestRepeatedOptions(t *testing.T) {
	d := boottest.Disk{Files: boottest.UEFIVars()}
	d.Files["Boot0007"] = boottest.BootOption(1, "copy", `\EFI\ab\B.efi`)
	d.Files["Boot0008"] = boottest.BootOption(0, "inactive", `\EFI\ab\B.efi`)
	d.Files["BootOrder"] = "\x07\x00\x02\x0a\x08\x00\x03\x00"
	d.Files["BootNext"] = "\x08\x00"
	m := boottest.New(d)
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || !slices.Equal(st.Boots, []string{"B", "B", "B"}) {
		t.Errorf("State = %+v, %v; want slot B", st, err)
	}
	if err := b.Invalidate(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	if got := m.Disk().Files; got["BootOrder"] != "\x08\x00\x03\x00" || got["BootNext"] != "" {
		t.Errorf("after Invalidate BootOrder is %x and BootNext %x", got["BootOrder"], got["BootNext"])
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if got := m.Disk().Files["BootNext"]; got != "\x07\x00" {
		t.Errorf("after Activate BootNext is %x; want 0007", got)
	}
}

// A path may be spread over several nodes, and what follows the end of the device path does not count.
func TestDevicePaths(t *testing.T) {
	node := func(path string) string {
		out := []byte{4, 4, byte(4 + 2*len(path) + 2), 0}
		for _, c := range path + "\x00" {
			out = append(out, byte(c), 0)
		}
		return string(out)
	}
	const end = "\x7f\xff\x04\x00"
	for name, c := range map[string]struct{ path, want string }{
		"one node":       {node(`\EFI\ab\A.efi`), "A"},
		"two nodes":      {node(`\EFI\ab`) + node("A.efi"), "A"},
		"behind the end": {node(`\EFI\other.efi`) + end + node(`\EFI\ab\A.efi`), ""},
	} {
		plain := boottest.BootOption(1, "x", "")
		at := strings.Index(plain, node(""))
		option := []byte(plain[:at] + c.path + end)
		binary.LittleEndian.PutUint16(option[4:], uint16(len(option)-6-4))
		m := boottest.New(boottest.Disk{Files: map[string]string{"Boot0001": string(option), "BootOrder": "\x01\x00"}})
		b, err := open(m, "")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != c.want {
			t.Errorf("%s: State = %+v, %v; want slot %q", name, st, err, c.want)
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
	f.Fuzz(func(t *testing.T, opt, order, next []byte) { takes(t, opt, order, next) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzOptions", 9, 3, func(v []string) bool { return takes(t, []byte(v[0]), []byte(v[1]), []byte(v[2])) })
}

// takes marks slot A good among arbitrary variables. It reports whether a slot booted next before that.
func takes(t *testing.T, opt, order, next []byte) bool {
	m := boottest.New(boottest.Disk{Files: map[string]string{"Boot0003": string(opt), "BootOrder": string(order), "BootNext": string(next)}})
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Boots[2] != "A" {
		t.Fatalf("after mark good State = %+v, %v", st, err)
	}
	return before.Next != ""
}
