package tryboot_test

import (
	"errors"
	"fmt"
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
	for n, want := range map[byte]string{2: "A", 3: "B", 1: ""} {
		if err := os.WriteFile(filepath.Join(dir, "partition"), []byte{0, 0, 0, n}, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := tryboot.Running(root, []string{"A", "B"}, partition); got != want || err != nil {
			t.Errorf("partition %d: Running = %q, %v; want %q", n, got, err, want)
		}
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
	if _, err := (tryboot.Mailbox{Path: "/dev/null"}).Get(); err == nil || !strings.Contains(fmt.Sprint(err), "ioctl") {
		t.Errorf("Get on another device = %v; want an ioctl error", err)
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
