package tryboot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/tryboot"
	"updater/internal/crashdisk/bootdisk"
)

var partition = map[string]int{"A": 2, "B": 3}

func open(m *boottest.Medium, booted string) (boot.Backend, error) {
	flag := boottest.TrybootFlag{Vars: boottest.Vars{M: m}}
	return tryboot.New(tryboot.Options{Area: m.Areas()[0], Flag: flag, Slots: []string{"A", "B"}, Partition: partition}, booted)
}

func disk(text string) boottest.Disk {
	return boottest.Disk{Areas: [][]byte{[]byte(text)}, Files: map[string]string{"tryboot": "\x00"}}
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Volatile: bootdisk.New,
		Fresh:    func(*testing.T) boottest.Disk { return disk(boottest.Autoboot) },
		Open:     open,
		Boot:     boottest.Tryboot,
		Caps:     boot.Caps{MaxTries: 1, SwitchAtomic: true, VolatileTry: true},
		Others: func(d boottest.Disk) []string {
			return []string{strings.NewReplacer("=2", "", "=3", "").Replace(string(d.Areas[0]))}
		},
		AlwaysBoots: true,
	})
}

// After a power cut the old slot boots, since the flag is lost.
func TestTryIsVolatile(t *testing.T) {
	m := boottest.New(disk(boottest.Autoboot))
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil || !b.Caps().VolatileTry {
		t.Fatalf("Activate = %v, Caps = %+v", err, b.Caps())
	}
	d := m.Disk()
	d.Files["tryboot"] = "\x00"
	if got := boottest.Tryboot(&d); got != "A" {
		t.Errorf("after a power cut the firmware boots %q; want A", got)
	}
}

func TestBadFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no tryboot": "[all]\nboot_partition=2\n", "no number": strings.Replace(boottest.Autoboot, "=2", "=x", 1),
		"repeated":   "[all]\nboot_partition=2\nboot_partition=2\n[tryboot]\nboot_partition=3\n",
		"overridden": "[tryboot]\nboot_partition=3\n[all]\nboot_partition=2\n",
		"filter":     "[all]\nboot_partition=2\n[gpio4=1]\nboot_partition=4\n[tryboot]\nboot_partition=3\n",
		"blanks":     "[all]\nboot_partition = 2\n[tryboot]\nboot_partition=3\n",
		"digit 0":    strings.Replace(boottest.Autoboot, "=2", "=0", 1),
		"all behind": "[tryboot]\nboot_partition=3\n[all]\nboot_partition=2\n[tryboot]\n",
		"try twice":  boottest.Autoboot + "boot_partition=3\n",
		"two digits": strings.Replace(boottest.Autoboot, "=2", "=12", 1), "too long": boottest.Autoboot + strings.Repeat("#", 512),
	} {
		m := boottest.New(disk(text))
		b, err := open(m, "A")
		if err != nil {
			t.Fatal(err)
		}
		for op, err := range map[string]error{
			"Activate": b.Activate(t.Context(), "B", 1), "MarkGood": b.MarkGood(t.Context(), "A"), "Repair": b.Repair(t.Context()),
		} {
			if !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
				t.Errorf("%s: %s = %v, %d writes; want ErrState and none", name, op, err, m.Writes())
			}
		}
	}
}

// The device tree names the partition that the firmware booted.
func TestRunning(t *testing.T) {
	root := t.TempDir()
	if got, err := tryboot.Running(root, []string{"A", "B"}, partition); got != "" || err != nil {
		t.Errorf("without a device tree Running = %q, %v", got, err)
	}
	dir := filepath.Join(root, "chosen/bootloader")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "partition")
	for data, want := range map[string]string{
		"\x00\x00\x00\x02": "A", "\x00\x00\x00\x03": "B", "\x00\x00\x00\x01": "", "\x00\x00\x02": "", "\x00\x00\x00\x02\x00": "",
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := tryboot.Running(root, []string{"A", "B"}, partition); got != want || err != nil {
			t.Errorf("partition %x: Running = %q, %v; want %q", data, got, err, want)
		}
	}
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	if got, err := tryboot.Running(root, []string{"A", "B"}, partition); got != "" || err == nil {
		t.Errorf("a partition that cannot be read: Running = %q, %v; want an error", got, err)
	}
}

// Without a property interface Activate fails and changes nothing.
func TestNoMailbox(t *testing.T) {
	m := boottest.New(disk(boottest.Autoboot))
	flag := tryboot.Mailbox{Path: filepath.Join(t.TempDir(), "vcio")}
	b, err := tryboot.New(tryboot.Options{Area: m.Areas()[0], Flag: flag, Slots: []string{"A", "B"}, Partition: partition}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
		t.Errorf("Activate = %v, %d writes; want ErrState and none", err, m.Writes())
	}
	_, err = flag.Get()
	for name, err := range map[string]error{"Get": err, "Set": flag.Set(true)} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s without a mailbox = %v; want that it does not exist", name, err)
		}
	}
}

// TestOtherDevice: a device that is not a mailbox is an error, and is closed.
func TestOtherDevice(t *testing.T) {
	var open [5]int
	for i := range open {
		if _, err := (tryboot.Mailbox{Path: "/dev/null"}).Get(); err == nil || !strings.Contains(fmt.Sprint(err), "ioctl") {
			t.Errorf("Get on another device = %v; want an ioctl error", err)
		}
		open[i] = boottest.OpenFiles(t)
	}
	if open[1] != open[4] {
		t.Errorf("open files grow: %v", open)
	}
}

func FuzzAutoboot(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) { takes(t, text) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzAutoboot", 9, 4, func(v []string) bool { return takes(t, v[0]) })
}

// takes marks slot A good in an arbitrary autoboot.txt. It reports whether the file is valid.
func takes(t *testing.T, text string) bool {
	m := boottest.New(disk(text))
	b, err := open(m, "A")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); err != nil {
		return false
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || len(m.Snapshot()[0]) != len(text) {
		t.Fatalf("after mark good State = %+v, %v", st, err)
	}
	return true
}

// TestFlags: the flag of a disk image lasts in its file, that of a target as long as the program.
func TestFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "card.img.tryboot")
	held := new(tryboot.Held)
	for name, open := range map[string]func() tryboot.Flag{
		"file": func() tryboot.Flag { return tryboot.File{Path: path} },
		"held": func() tryboot.Flag { return held },
	} {
		for _, on := range []bool{false, true, true, false, false} {
			if err := open().Set(on); err != nil {
				t.Fatalf("%s: Set(%v) = %v", name, on, err)
			}
			if got, err := open().Get(); got != on || err != nil {
				t.Errorf("%s: Get = %v, %v after Set(%v)", name, got, err, on)
			}
		}
	}
}

// TestFlagFails: a flag whose file can be neither looked up nor changed is an error.
func TestFlagFails(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(parent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flag := tryboot.File{Path: filepath.Join(parent, "flag")}
	_, err := flag.Get()
	for name, err := range map[string]error{"Get": err, "Set(true)": flag.Set(true), "Set(false)": flag.Set(false)} {
		if err == nil {
			t.Errorf("%s below a file is no error", name)
		}
	}
}

func TestNew(t *testing.T) {
	m := boottest.New(disk(boottest.Autoboot))
	for _, c := range []struct {
		slots []string
		a, b  int
		ok    bool
	}{
		{[]string{"A", "B"}, 1, 9, true}, {[]string{"A", "B"}, 0, 9, false}, {[]string{"A", "B"}, 1, 10, false}, {[]string{"A"}, 1, 9, false},
		{[]string{"A", "B", "A"}, 1, 9, false},
	} {
		o := tryboot.Options{Area: m.Areas()[0], Flag: new(tryboot.Held), Slots: c.slots, Partition: map[string]int{"A": c.a, "B": c.b}}
		if _, err := tryboot.New(o, "A"); (err == nil) != c.ok || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("New with slots %v in partitions %d and %d = %v; want success: %v", c.slots, c.a, c.b, err, c.ok)
		}
	}
}

// autoboot returns an autoboot.txt with two partitions, and the flag.
func autoboot(all, try byte, pending bool) boottest.Disk {
	d := disk(fmt.Sprintf("[all]\ntryboot_a_b=1\nboot_partition=%c\n[tryboot]\nboot_partition=%c\n", all, try))
	if pending {
		d.Files["tryboot"] = "\x01"
	}
	return d
}

// TestState: the meaning of both sections and the flag for each slot.
func TestState(t *testing.T) {
	for _, c := range []struct {
		disk           boottest.Disk
		booted, next   string
		a, b, evidence string
	}{
		{autoboot('2', '3', false), "A", "A", "true true -1 2", "true true -1 1", ""},
		{autoboot('2', '3', false), "B", "A", "true true -1 2", "true false -1 1", ""},
		{autoboot('2', '3', true), "A", "B", "true true -1 2", "true false 1 3", ""},
		{autoboot('2', '2', false), "A", "A", "true true -1 2", "false false 0 0", ""},
		{autoboot('2', '2', true), "A", "A", "true true -1 2", "false false 0 0", ""},
		{autoboot('7', '3', false), "A", "", "false false 0 0", "true true -1 1", "has boot_partition=7 in [all], which"},
		{autoboot('9', '1', false), "A", "", "false false 0 0", "false false 0 0", "has boot_partition=9 in [all], which"},
		{autoboot('2', '8', false), "A", "A", "true true -1 2", "false false 0 0", "has boot_partition=8 in [tryboot], which"},
		{disk("[all]\nboot_partition=2\n[tryboot]\nboot_partition=3\n"), "A", "A", "true true -1 2", "true true -1 1", "lacks tryboot_a_b=1"},
		{disk(boottest.Autoboot + strings.Repeat("#", boot.Sector-len(boottest.Autoboot))), "A", "A", "true true -1 2", "true true -1 1", ""},
	} {
		b, err := open(boottest.New(c.disk), c.booted)
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil || st.Next != c.next {
			t.Errorf("%q: State = %+v, %v; want slot %q", c.disk.Areas[0], st, err, c.next)
			continue
		}
		for i, want := range []string{c.a, c.b} {
			if s := st.Slots[i]; fmt.Sprint(s.Bootable, s.Good, s.TriesLeft, s.Priority) != want {
				t.Errorf("%q: a slot is %+v; want %s", c.disk.Areas[0], s, want)
			}
		}
		found := st.Findings[:len(st.Findings)-len(boot.Disagreements(st))]
		if len(found) > 0 != (c.evidence != "") || c.evidence != "" && !strings.Contains(found[0].Evidence, c.evidence) {
			t.Errorf("%q: State finds %v; want %q", c.disk.Areas[0], found, c.evidence)
		}
	}
}

// TestSections: the partitions in both sections and the flag after each change.
func TestSections(t *testing.T) {
	activate := func(slot string) func(b boot.Backend) error {
		return func(b boot.Backend) error { return b.Activate(t.Context(), slot, 1) }
	}
	restore := func(slot string) func(b boot.Backend) error {
		return func(b boot.Backend) error { return boot.RestoreFallback(t.Context(), b, slot) }
	}
	for _, c := range []struct {
		name    string
		disk    boottest.Disk
		booted  string
		do      func(b boot.Backend) error
		want    string
		refused bool
	}{
		{"activate B", autoboot('2', '2', false), "A", activate("B"), "2 3 1", false},
		{"activate B again", autoboot('2', '3', true), "A", activate("B"), "2 3 1", false},
		{"activate A instead of B", autoboot('2', '3', true), "A", activate("A"), "2 3 0", false},
		{"activate A, nothing to try", autoboot('2', '8', false), "A", activate("A"), "2 2 0", false},
		{"activate A, none before", autoboot('7', '3', false), "A", activate("A"), "2 3 0", false},
		{"activate A, none at all", autoboot('7', '8', true), "A", activate("A"), "2 2 0", false},
		{"invalidate B on trial", autoboot('2', '3', true), "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, "2 2 0", false},
		{"mark A bad", autoboot('2', '3', false), "A", func(b boot.Backend) error { return b.MarkBad(t.Context(), "A") }, "3 3 0", false},
		{"mark A bad, nothing to try", autoboot('2', '2', false), "A", func(b boot.Backend) error { return b.MarkBad(t.Context(), "A") }, "2 2 0", true},
		{"mark B good", autoboot('2', '3', false), "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, "3 2 0", false},
		{"mark B good, none before", autoboot('7', '3', false), "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, "3 3 0", false},
		{"restore B", autoboot('2', '2', false), "A", restore("B"), "2 3 0", false},
		{"restore B, flag set", autoboot('2', '2', true), "A", restore("B"), "2 3 0", false},
		{"restore A behind B", autoboot('2', '3', true), "", restore("A"), "2 3 1", false},
		{"restore B, which is next", autoboot('2', '3', true), "", restore("B"), "2 3 1", true},
	} {
		m := boottest.New(c.disk)
		b, err := open(m, c.booted)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(b); c.refused != errors.Is(err, boot.ErrRefused) || !c.refused && err != nil {
			t.Errorf("%s = %v; want a refusal: %v", c.name, err, c.refused)
		}
		d := m.Disk()
		text := strings.Split(string(d.Areas[0]), "boot_partition=")
		if got := fmt.Sprintf("%c %c %d", text[1][0], text[2][0], d.Files["tryboot"][0]); got != c.want {
			t.Errorf("%s: [all], [tryboot] and the flag are %s; want %s", c.name, got, c.want)
		}
		if c.name == "activate B again" && m.Writes() > 0 {
			t.Errorf("%s wrote %d times", c.name, m.Writes())
		}
	}
}

// readOnly is an area that cannot be written.
type readOnly struct{ boot.Area }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

// TestFlagIsSetLast: the flag is not set while [tryboot] names another slot, nor cleared before [all] is written.
func TestFlagIsSetLast(t *testing.T) {
	for slot, d := range map[string]boottest.Disk{"B": autoboot('2', '2', false), "A": autoboot('7', '3', true)} {
		m := boottest.New(d)
		flag := boottest.TrybootFlag{Vars: boottest.Vars{M: m}}
		b, err := tryboot.New(tryboot.Options{Area: readOnly{m.Areas()[0]}, Flag: flag, Slots: []string{"A", "B"}, Partition: partition}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Activate(t.Context(), slot, 1); !errors.Is(err, boot.ErrState) || m.Disk().Files["tryboot"] != d.Files["tryboot"] {
			t.Errorf("Activate of slot %s on a read-only file = %v, and the flag is %q", slot, err, m.Disk().Files["tryboot"])
		}
	}
}

// stuck is a flag that cannot be changed.
type stuck struct{ tryboot.Flag }

func (stuck) Set(bool) error { return os.ErrPermission }

// TestFlagIsClearedFirst: while the flag is set, [tryboot] boots next; nothing is written to it before the flag is cleared.
func TestFlagIsClearedFirst(t *testing.T) {
	for name, do := range map[string]func(b boot.Backend) error{
		"RestoreFallback": func(b boot.Backend) error { return boot.RestoreFallback(t.Context(), b, "B") },
		"MarkBad":         func(b boot.Backend) error { return b.MarkBad(t.Context(), "B") },
	} {
		m := boottest.New(autoboot('2', '2', true))
		flag := stuck{boottest.TrybootFlag{Vars: boottest.Vars{M: m}}}
		b, err := tryboot.New(tryboot.Options{Area: m.Areas()[0], Flag: flag, Slots: []string{"A", "B"}, Partition: partition}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := do(b); !errors.Is(err, os.ErrPermission) || !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
			t.Errorf("%s with a flag that cannot be cleared = %v, %d writes; want ErrState and none", name, err, m.Writes())
		}
	}
}
