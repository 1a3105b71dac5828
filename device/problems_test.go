package device_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"updater/device"
	"updater/device/config"
)

const slots = `
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=b" }
`

// TestProblems: every error of a configuration has its line and its key.
func TestProblems(t *testing.T) {
	grub := "[boot]\nbackend = \"grub\"\nenv = \"PARTLABEL=esp:/grubenv\"\n"
	type place struct {
		Line int
		Key  string
	}
	for _, c := range []struct {
		name, text string
		want       []place
	}{
		{"right", grub + slots, nil},
		{"syntax", "product = \n", []place{{1, "product"}}},
		{"type", grub + "tries = \"3\"\n" + slots, []place{{4, "boot.tries"}}},
		{"twice", "product = \"a\"\nproduct = \"b\"\n", []place{{2, "product"}}},
		{"unknown", "bogus = 1\n" + grub + "trys = 3\n[trust]\n[[trust.key]]\nfinger = \"x\"\n" + slots,
			[]place{{1, "bogus"}, {5, "boot.trys"}, {7, "trust.key.fingerprint"}, {8, "trust.key.finger"}}},
		{"values", grub + "tries = 12\n[disk]\nengine = \"fast\"\n[source]\nclient_key = \"k\"\n[recovery]\nmode = \"x\"\n" + slots,
			[]place{{4, "boot.tries"}, {6, "disk.engine"}, {7, "source.client_cert"}, {10, "recovery.mode"}}},
		{"missing", "product = \"a\"\n[boot]\n", []place{{0, "slot"}, {2, "boot.backend"}}},
		{"slots", grub + "[[slot]]\nname = \"A-1\"\npartitions = { rootfs = \"x\" }\n[[slot]]\nname = \"B\"\npartitions = { rootfs = \"x\" }\n[[slot]]\nname = \"B\"\npartitions = { rootfs = \"y\" }\n",
			[]place{{5, "slot.name"}, {7, "slot"}}},
		{"same partition", grub + slots + "[[slot]]\nname = \"C\"\npartitions = { rootfs = \"PARTLABEL=a\" }\n", []place{{13, "slot.partitions"}}},
		{"no table", grub + "variables = 3\n[trust]\nrole_signers = 2\n" + slots, []place{{4, "boot.variables"}, {6, "trust.role_signers"}}},
		{"slot without a table", grub + slots + "[[slot]]\nname = \"C\"\npartitions = \"x\"\n", []place{{7, "slot.partitions"}, {13, "slot.partitions"}}},
		{"file without state", grub + slots + "[[slot]]\nname = \"C\"\npartitions = { rootfs = \"c\" }\nfiles = { uki = \"PARTLABEL=esp:/C.efi\" }\n", []place{{14, "slot.files"}}},
		{"what grub needs", "[boot]\nbackend = \"grub\"\ndialect = \"bootcount\"\n" + slots, []place{{1, "boot.env"}, {3, "boot.dialect"}}},
		{"what uboot needs", "[boot]\nbackend = \"uboot\"\n" + slots, []place{{1, "boot.env"}}},
		{"what efi needs", "[boot]\nbackend = \"efi\"\nesp = \"PARTLABEL=esp\"\n" + slots, []place{{5, "slot.loader"}, {8, "slot.loader"}}},
		{"what barebox needs", "[boot]\nbackend = \"barebox\"\n" + slots, []place{{1, "boot.env"}, {4, "slot.attempts"}, {7, "slot.attempts"}}},
		{"what custom needs", "[boot]\nbackend = \"custom\"\n[boot.commands]\nstate = [\"/x\"]\ninvalidate = [\"/x\"]\nactivate = [\"/x\"]\n" + slots, []place{{3, "boot.commands"}}},
		{"roles without a store", grub + "[[slot]]\nname = \"A\"\npartitions = { a = \"1\", b = \"2\" }\n[[slot]]\nname = \"B\"\npartitions = { a = \"3\", b = \"4\" }\n", []place{{0, "state"}}},
		{"other roles", "state = \"x\"\n" + grub + slots + "[[slot]]\nname = \"C\"\npartitions = { b = \"2\" }\n", []place{{12, "slot"}}},
		{"one slot", "[boot]\nbackend = \"gpt\"\n[[slot]]\nname = \"A\"\npartitions = { a = \"1\" }\n", []place{{3, "slot"}}},
		{"key", grub + "[[trust.key]]\nfingerprint = \"12\"\n" + slots, []place{{5, "trust.key.fingerprint"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []place
			list := device.Problems(path)
			for _, p := range list {
				got = append(got, place{p.Line, p.Key})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%v\n%s", list, diff)
			}
			// Nothing that a load refuses is right.
			if _, err := device.LoadConfig(path, config.Build{}); err != nil && len(list) == 0 {
				t.Errorf("no problem, but loading it: %v", err)
			}
		})
	}
	if list := device.Problems(filepath.Join(t.TempDir(), "none")); len(list) != 1 || list[0].Line != 0 {
		t.Errorf("a missing file: %v", list)
	}
}

// TestProblemsOfExamples: the examples have none.
func TestProblemsOfExamples(t *testing.T) {
	boots, err := filepath.Glob("../examples/boot/*/*.toml")
	uses, bad := filepath.Glob("../examples/use/*.toml")
	files := append(boots, uses...)
	if err != nil || bad != nil || len(boots) < 10 || len(uses) < 5 {
		t.Fatalf("%d examples, %v, %v", len(files), err, bad)
	}
	for _, path := range files {
		if list := device.Problems(path); len(list) > 0 {
			t.Errorf("%s: %v", path, list)
		}
	}
}
