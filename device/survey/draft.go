package survey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"updater/device"
	"updater/device/config"

	"updater/boot/grub"
)

// Config is the draft of config.toml. The reader of this program loads it.
func (s *Survey) Config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Drafted by updater init from %q. Read it before use; updater.toml(5) lists every key.\n#\n# Found:\n", s.Disk)
	for _, f := range s.Found {
		fmt.Fprintf(&b, "#   %s\n", f)
	}
	b.WriteString("# Not known:\n")
	for _, u := range s.Unknown {
		fmt.Fprintf(&b, "#   %s\n", u)
	}
	product := "# product = \"acme-gw\"                # the name that your releases carry\n"
	if s.Product != "" {
		product = "product = " + quote(s.Product) + "\n"
	}
	b.WriteString("\n" + product + "keyring = [\"keys\"]                    # the folder with the certificates that may sign\n")
	if s.State == "" {
		b.WriteString("# state = \"PARTLABEL=state\"           # a partition of 1 to 8 MiB, or a file that no slot has\n")
	} else {
		fmt.Fprintf(&b, "state = %s\n", quote(s.State))
	}
	b.WriteString("\n# [disk]\n# path = \"/dev/mmcblk0\"               # left out: the disk that booted\n")
	fmt.Fprintf(&b, "\n[boot]\nbackend = %s\n", quote(s.Backend))
	for _, line := range s.Boot {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "tries = %d                             # boots of a new slot before the loader falls back\n", s.Tries)
	for _, slot := range s.Slots {
		fmt.Fprintf(&b, "\n[[slot]]\nname = %s\npartitions = %s\n", quote(slot.Name), table(slot.Partitions))
		if len(slot.Files) > 0 && s.State == "" {
			b.WriteString("# once state is set:\n# ")
		}
		if len(slot.Files) > 0 {
			fmt.Fprintf(&b, "files = %s\n", table(slot.Files))
		}
		for _, line := range slot.Lines {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// table is an inline table of strings, in the order of its keys.
func table(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+" = "+quote(m[k]))
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

// FirstState is the boot loader's first state with the first slot good and the others empty, as a file to ship: its name and bytes. name is
// "" for a boot loader whose state is not a file; advice is then how to set it.
func (s *Survey) FirstState() (name string, data []byte, advice string, err error) {
	a, b := s.Slots[0], s.Slots[1]
	switch s.Backend {
	case "grub":
		o := grub.Options{Slots: []string{a.Name, b.Name}, Dialect: grub.Dialect(s.dialect), Create: func(block []byte) error { data = block; return nil }}
		g, err := grub.New(o, a.Name)
		if err == nil {
			err = g.Repair(context.Background())
		}
		return "grubenv", data, "copy it to the place that boot.env names", err
	case "uboot":
		text := fmt.Sprintf("BOOT_ORDER=%s\nBOOT_%[1]s_LEFT=3\nBOOT_%s_LEFT=0\n", a.Name, b.Name)
		if s.dialect == "bootcount" {
			text = fmt.Sprintf("active=%s\nupgrade_available=0\nbootcount=0\nbootlimit=%d\n", a.Name, s.Tries)
		}
		return "boot.env", []byte(text), "add these variables to the default environment, with the script of examples/boot/uboot", nil
	case "tryboot":
		number := func(slot Slot) string { return strings.TrimPrefix(slot.Lines[0], "boot_partition = ") }
		text := fmt.Sprintf("[all]\ntryboot_a_b=1\nboot_partition=%s\n[tryboot]\nboot_partition=%s\n", number(a), number(b))
		return "autoboot.txt", []byte(text), "copy it to the place that boot.env names", nil
	case "systemd-boot":
		advice = "docs/boot/systemd-boot.md lists the files of the ESP"
	case "custom":
		advice = "the programs of boot.commands keep it"
	default:
		advice = fmt.Sprintf("updater init --first-state %s sets it on the device", a.Name)
	}
	return "", nil, advice, nil
}

// Draft looks and writes the draft to a new file, and the boot loader's first state, where it is a file and the disk has none, beside it. lines
// report what was found, what is to be done, and what was written. No file is overwritten, and either all are written or none. Errors: those
// of [Look], [config.RequestError].
func Draft(o Options, name string) (s *Survey, lines []string, err error) {
	if s, err = Look(o); err != nil {
		return nil, nil, err
	}
	files, todo := map[string][]byte{name: []byte(s.Config())}, s.Unknown
	if !s.Has {
		state, data, advice, err := s.FirstState()
		if err != nil {
			return nil, nil, err
		}
		if state != "" {
			state = filepath.Join(filepath.Dir(name), state)
			files[state], advice = data, state+": "+advice
		}
		todo = append(todo, "the boot loader's first state: "+advice)
	}
	written, err := writeNew(files)
	if err != nil {
		return nil, nil, err
	}
	for prefix, list := range map[string][]string{"found: ": s.Found, "to do: ": todo, "written: ": written} {
		for _, text := range list {
			lines = append(lines, prefix+text)
		}
	}
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(a[:1], b[:1]) })
	return s, lines, nil
}

// writeNew writes files that do not exist yet, all or none. They are not durable.
func writeNew(files map[string][]byte) (written []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		var f *os.File
		if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			break
		}
		written = append(written, name)
		_, err = f.Write(files[name])
		if err = errors.Join(err, f.Close()); err != nil {
			break
		}
	}
	if err == nil {
		return written, nil
	}
	for _, name := range written {
		err = errors.Join(err, os.Remove(name))
	}
	if errors.Is(err, fs.ErrExist) {
		err = &config.RequestError{Err: err, Advice: "no file is overwritten; name another one with -o, or move this one away"}
	}
	return nil, err
}

// ApplyFirstState makes a slot the boot loader's choice by the configuration that was written, and marks the other slots bad. A boot loader
// that has a choice is left as it is.
func ApplyFirstState(ctx context.Context, c *config.Config, disk, slot string) error {
	c.Disk.Path = disk
	d, err := device.Open(c, device.Options{Purpose: device.Change, Booted: slot})
	if err != nil {
		return err
	}
	defer d.Close()
	return d.FirstState(ctx)
}
