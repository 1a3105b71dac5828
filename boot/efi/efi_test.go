package efi_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
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
	for current, want := range map[string]string{"\x02\x0a": "B", "\x03\x00": "A", "\x05\x00": "", "\x03": "", "\x03\x00\x00": "", "": ""} {
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
	for n := 1; ; n++ {
		m := boottest.New(boottest.Disk{Files: boottest.UEFIVars()})
		m.FailAt = n
		got, err := efi.Running(efi.Options{Vars: boottest.Vars{M: m}, Slots: []string{"A", "B"}, Targets: targets})
		if m.Operations() < n {
			break
		}
		if got != "" || !errors.Is(err, boot.ErrState) || !errors.Is(err, boottest.ErrInjected) {
			t.Errorf("operation %d failed: Running = %q, %v; want ErrState and the cause", n, got, err)
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
		t.Errorf("after Activate BootNext is %x; want 0007, the lowest that is active", got)
	}
	d.Files["BootOrder"] = "\x02\x0a\x07\x00"
	m = boottest.New(d)
	if b, err = open(m, "A"); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil || m.Disk().Files["BootNext"] != "\x02\x0a" {
		t.Errorf("Activate = %v, and BootNext is %x; want 0A02, the first in BootOrder", err, m.Disk().Files["BootNext"])
	}
}

// A path may be spread over several nodes, and nodes after the end of the device path do not count.
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
		"one node":        {node(`\EFI\ab\A.efi`), "A"},
		"two nodes":       {node(`\EFI\ab`) + node("A.efi"), "A"},
		"two backslashes": {node(`\EFI\ab\`) + node(`\A.efi`), "A"},
		"an empty node":   {"\x01\x05\x04\x00" + node(`\EFI\ab\A.efi`), "A"},
		"end before it":   {end + node(`\EFI\ab\A.efi`), ""},
		"behind the end":  {node(`\EFI\other.efi`) + end + node(`\EFI\ab\A.efi`), ""},
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
	for _, guid := range []string{"x", "6f1b9f0a", esp.GUID + "00"} {
		bad := efi.Target{Partition: efi.Partition{GUID: guid}}
		_, err := efi.New(efi.Options{Slots: []string{"A", "B"}, Targets: map[string]efi.Target{"A": targets["A"], "B": bad}}, "")
		if !errors.Is(err, boot.ErrState) {
			t.Errorf("New with the GUID %s = %v; want ErrState", guid, err)
		}
	}
	if _, err := efi.New(efi.Options{}, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New without slots = %v; want ErrState", err)
	}
}

// TestOptions: which variables start a slot, and which the firmware skips.
func TestOptions(t *testing.T) {
	option := boottest.BootOption(1, "ab-A", `\EFI\ab\A.efi`)
	patch := func(off int, b string) string { return option[:off] + b + option[off+len(b):] }
	disk := strings.Index(option, "\x04\x01\x2a\x00")
	for _, c := range []struct{ name, variable, data, next string }{
		{"sound", "Boot000A", option, "A"},
		{"other case", "Boot000A", boottest.BootOption(1, "ab-A", `\efi\AB\a.EFI`), "A"},
		{"lower case name", "Boot000a", option, ""},
		{"long name", "Boot0000A", option, ""},
		{"inactive", "Boot000A", patch(0, "\x00"), ""},
		{"of a category", "Boot000A", patch(1, "\x01"), ""},
		{"hidden", "Boot000A", patch(0, "\x09"), "A"},
		{"other partition", "Boot000A", patch(disk+24, "\x00"), ""},
		{"MBR signature", "Boot000A", patch(disk+41, "\x01"), ""},
		{"disk node of another type", "Boot000A", patch(disk, "\x01"), ""},
		{"disk node of another subtype", "Boot000A", patch(disk+1, "\x03"), ""},
		{"file node of another type", "Boot000A", patch(disk+42, "\x01"), ""},
		{"file node of another subtype", "Boot000A", patch(disk+43, "\x03"), ""},
		{"no end", "Boot000A", patch(len(option)-4, "\x04\x03"), ""},
		{"long disk node", "Boot000A", patch(disk+2, "\x2c"), ""},
		{"short disk node", "Boot000A", patch(disk+2, "\x28"), ""},
		{"node of 3 bytes", "Boot000A", patch(disk+2, "\x03"), ""},
		{"node beyond the end", "Boot000A", patch(disk+3, "\x7f"), ""},
		{"short", "Boot000A", option[:7], ""},
		{"cut", "Boot000A", option[:len(option)-1], ""},
		{"no description", "Boot000A", option[:6] + strings.Repeat("x", 40), ""},
		{"cut in the description", "Boot000A", option[:6] + "x\x00y\x00\x00", ""},
		{"odd NUL", "Boot000A", option[:6] + "x\x00\x00\x01" + option[10:], "A"},
		{"more data", "Boot000A", option + "optional", "A"},
	} {
		order := "\x0a\x00"
		m := boottest.New(boottest.Disk{Files: map[string]string{c.variable: c.data, "BootOrder": order}})
		b, err := open(m, "")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != c.next {
			t.Errorf("%s: State = %+v, %v; want slot %q", c.name, st, err, c.next)
		}
	}
}

// TestBootOrder: BootOrder and BootNext after each change of the fresh variables, which list A, B and another option.
func TestBootOrder(t *testing.T) {
	for _, c := range []struct {
		name, booted string
		order, next  string
		do           func(b boot.Backend) error
		want         string
		err          error
	}{
		{"mark B good", "B", "", "", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, "020a030005000000 ", nil},
		{"mark A good", "A", "", "", func(b boot.Backend) error { return b.MarkGood(t.Context(), "A") }, "0300020a05000000 ", nil},
		{"invalidate B", "A", "", "", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, "030005000000 ", nil},
		{"invalidate B on trial", "A", "\x03\x00", "\x02\x0a", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, "0300 ", nil},
		{"mark the only one on trial bad", "A", "\x05\x00", "\x02\x0a", func(b boot.Backend) error { return b.MarkBad(t.Context(), "B") },
			"0500 020a", boot.ErrRefused},
		{"invalidate without a slot", "", "\x05\x00", "", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, "0500 ", nil},
		{"restore B", "A", "\x05\x00\x03\x00\x00\x00", "",
			func(b boot.Backend) error { return boot.RestoreFallback(t.Context(), b, "B") }, "05000300020a0000 ", nil},
		{"restore A behind B on trial", "", "\x05\x00", "\x02\x0a", func(b boot.Backend) error { return boot.RestoreFallback(t.Context(), b, "A") },
			"03000500 020a", nil},
		{"activate A", "B", "", "", func(b boot.Backend) error { return b.Activate(t.Context(), "A", 1) }, "0300020a05000000 0300", nil},
		{"activate A again", "B", "", "\x03\x00", func(b boot.Backend) error { return b.Activate(t.Context(), "A", 1) }, "0300020a05000000 0300", nil},
		{"odd order", "B", "\x05\x00\x03\x00\x02", "", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, "020a05000300 ", nil},
		{"repair of an order", "B", "\x05\x00\x03\x00", "", func(b boot.Backend) error { return b.Repair(t.Context()) }, "05000300 ", nil},
		{"repair without one", "B", "\x05\x00", "", func(b boot.Backend) error { return b.Repair(t.Context()) }, "020a0500 ", nil},
		{"repair from elsewhere", "", "\x05\x00", "", func(b boot.Backend) error { return b.Repair(t.Context()) }, "0500 ", nil},
	} {
		d := boottest.Disk{Files: boottest.UEFIVars()}
		for name, value := range map[string]string{"BootOrder": c.order, "BootNext": c.next} {
			if value != "" {
				d.Files[name] = value
			}
		}
		m := boottest.New(d)
		b, err := open(m, c.booted)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(b); !errors.Is(err, c.err) {
			t.Errorf("%s = %v; want %v", c.name, err, c.err)
		}
		got := fmt.Sprintf("%x %x", m.Disk().Files["BootOrder"], m.Disk().Files["BootNext"])
		if same := got == fmt.Sprintf("%x %x", d.Files["BootOrder"], d.Files["BootNext"]); got != c.want || same && m.Writes() > 0 {
			t.Errorf("%s: BootOrder and BootNext are %s after %d writes; want %s", c.name, got, m.Writes(), c.want)
		}
	}
}

// TestNumberOfNewOption: a new option takes the first number that neither exists nor is listed in BootOrder.
func TestNumberOfNewOption(t *testing.T) {
	files := map[string]string{"Boot0000": "damaged", "Boot0002": boottest.BootOption(1, "x", ""), "BootOrder": "\x01\x00"}
	m := boottest.New(boottest.Disk{Files: files})
	b, err := open(m, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil || m.Disk().Files["BootNext"] != "\x03\x00" {
		t.Errorf("Activate = %v, and BootNext is %x; want 0003", err, m.Disk().Files["BootNext"])
	}
	for n := range 0xffff {
		files[fmt.Sprintf("Boot%04X", n)] = "damaged"
	}
	if b, err = open(boottest.New(boottest.Disk{Files: files}), ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "all boot option numbers") {
		t.Errorf("Activate without a free number = %v; want ErrState", err)
	}
}

// TestFailuresBesideMissingOptions: each operation fails in turn while a missing option is created. The change fails, or its outcome is that
// of a change without a failure.
func TestFailuresBesideMissingOptions(t *testing.T) {
	for _, c := range []struct {
		name, booted string
		files        map[string]string
		do           func(b boot.Backend) error
	}{
		{"Activate", "A", nil, func(b boot.Backend) error { return b.Activate(t.Context(), "B", 1) }},
		{"MarkGood", "B", nil, func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }},
		{"Repair", "A", nil, func(b boot.Backend) error { return b.Repair(t.Context()) }},
		{"RestoreFallback", "A", map[string]string{"Boot0003": boottest.BootOption(1, "ab-A", `\EFI\ab\A.efi`), "BootOrder": "\x03\x00"},
			func(b boot.Backend) error { return boot.RestoreFallback(t.Context(), b, "B") }},
	} {
		try := func(failAt int) (operations int, st boot.State, err error) {
			m := boottest.New(boottest.Disk{Files: c.files})
			m.FailAt = failAt
			b, unopened := open(m, c.booted)
			if unopened != nil {
				t.Fatal(unopened)
			}
			err = c.do(b)
			operations, m.FailAt = m.Operations(), 0
			st, unread := b.State(t.Context())
			if unread != nil {
				t.Fatal(unread)
			}
			return operations, st, err
		}
		operations, want, err := try(0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range operations {
			_, st, err := try(n + 1)
			if err == nil && !reflect.DeepEqual(st, want) || err != nil && (!errors.Is(err, boot.ErrState) || !errors.Is(err, boottest.ErrInjected)) {
				t.Errorf("%s: operation %d failed: %v, then State = %+v; want ErrState and the cause, or %+v", c.name, n+1, err, st, want)
			}
		}
	}
}

// keeping is firmware that does not delete variables.
type keeping struct{ boottest.Vars }

func (keeping) Delete(string) error { return nil }

// hiding is firmware that has a variable which it neither lists nor returns.
type hiding struct{ boottest.Vars }

func (h hiding) Get(name string) ([]byte, error) {
	if name == "Boot0001" {
		return nil, boottest.ErrInjected
	}
	return h.Vars.Get(name)
}

// failing is firmware whose variables cannot be read.
type failing struct{ boottest.Vars }

func (failing) Get(string) ([]byte, error) { return nil, boottest.ErrInjected }

// TestFirmware: an operation that the firmware does not carry out is an error.
func TestFirmware(t *testing.T) {
	d := boottest.Disk{Files: boottest.UEFIVars()}
	d.Files["BootNext"] = "\x02\x0a"
	vars := boottest.Vars{M: boottest.New(d)}
	b, err := efi.New(efi.Options{Vars: keeping{vars}, Slots: []string{"A", "B"}, Targets: targets}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Invalidate(t.Context(), "B"); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "BootNext still exists") {
		t.Errorf("Invalidate = %v; want ErrState", err)
	}
	if b, err = efi.New(efi.Options{Vars: hiding{boottest.Vars{M: boottest.New(boottest.Disk{Files: map[string]string{"Boot0000": "x"}})}},
		Slots: []string{"A", "B"}, Targets: targets}, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
		t.Errorf("beside a variable that cannot be read State = %+v, %v; want B next", st, err)
	}
	if slot, err := efi.Running(efi.Options{Vars: failing{vars}}); slot != "" || !errors.Is(err, boot.ErrState) {
		t.Errorf("Running = %q, %v; want ErrState", slot, err)
	}
	if text, err := efi.String(failing{vars}, "LoaderEntrySelected"); text != "" || !errors.Is(err, boottest.ErrInjected) {
		t.Errorf("String = %q, %v; want the cause", text, err)
	}
	if text, err := efi.String(vars, "LoaderEntrySelected"); text != "" || err != nil {
		t.Errorf("String of a missing variable = %q, %v", text, err)
	}
}

// TestFindings: an option that boots before the slots, or next, is found; one that the firmware skips is not.
func TestFindings(t *testing.T) {
	for _, c := range []struct{ name, order, next, want string }{
		{"behind the slots", "\x03\x00\x05\x00", "", ""},
		{"before the slots", "\x05\x00\x03\x00", "", "BootOrder lists Boot0005 (other), which is not a slot, before the slots"},
		{"a menu before the slots", "\x00\x00\x03\x00", "", ""},
		{"inactive before the slots", "\x06\x00\x03\x00", "", ""},
		{"missing before the slots", "\x09\x00\x03\x00", "", ""},
		{"next", "\x03\x00", "\x05\x00", "the next boot starts Boot0005, which is not a slot"},
		{"a menu next", "\x03\x00", "\x00\x00", "the next boot starts Boot0000, which is not a slot"},
		{"a long BootNext", "\x03\x00", "\x05\x00\x00", ""},
		{"a short BootNext", "\x03\x00", "\x05", ""},
		{"a slot next", "\x03\x00", "\x02\x0a", ""},
	} {
		d := boottest.Disk{Files: boottest.UEFIVars()}
		d.Files["Boot0006"] = boottest.BootOption(0, "off", `\EFI\off.efi`)
		d.Files["BootOrder"], d.Files["BootNext"] = c.order, c.next
		b, err := open(boottest.New(d), "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, f := range st.Findings[:len(st.Findings)-len(boot.Disagreements(st))] {
			found = append(found, f.Evidence)
		}
		if got := strings.Join(found, "; "); got != c.want {
			t.Errorf("%s: State finds %q; want %q", c.name, got, c.want)
		}
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
