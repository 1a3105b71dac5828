package grub_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
	"updater/internal/crashdisk/bootdisk"
)

// env returns a block of size bytes.
func env(size int, lines ...string) []byte {
	s := "# GRUB Environment Block\n" + strings.Join(lines, "\n") + "\n"
	return []byte(s + strings.Repeat("#", size-len(s)))
}

var good = []string{"first=1", "ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "saved_entry=x y", "B_TRY=0", "last=#"}

func disk(area []byte) boottest.Disk { return boottest.Disk{Areas: [][]byte{area}} }

func open(a boot.Area, booted string) (boot.Backend, error) {
	return grub.New(grub.Options{Area: a, Slots: []string{"A", "B"}}, booted)
}

// requested reports whether GRUB starts the menu entry of the recovery next.
func requested(d boottest.Disk) bool {
	return strings.Contains(string(d.Areas[0]), "\nnext_entry=recovery\n")
}

// others returns the foreign variables.
func others(d boottest.Disk) []string {
	var list []string
	for line := range strings.Lines(string(d.Areas[0])) {
		if name, _, ok := strings.Cut(line, "="); ok && (name == "first" || name == "saved_entry" || name == "last") {
			list = append(list, line)
		}
	}
	return list
}

func TestContract(t *testing.T) {
	for _, size := range []int{512, 1024} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			boottest.Contract(t, boottest.Rig{
				Volatile: bootdisk.New,
				Fresh:    func(*testing.T) boottest.Disk { return disk(env(size, good...)) },
				Open:     func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas()[0], booted) },
				Boot:     func(d *boottest.Disk) string { return boottest.GRUBScript(d.Areas) },
				Caps:     boot.Caps{MaxTries: 1, MarkGoodEveryBoot: true, SwitchAtomic: true},
				Recovery: requested,
				Others:   others,
			})
		})
	}
}

// table models examples/boot/grub/tries.cfg: a digit counts down, g is good and not counted.
func table(d *boottest.Disk) string {
	lines := strings.Split(string(d.Areas[0]), "\n")
	get := func(name string) string {
		for _, l := range lines {
			if v, ok := strings.CutPrefix(l, name+"="); ok {
				return v
			}
		}
		return ""
	}
	less := map[string]string{"g": "g", "1": "0", "2": "1", "3": "2", "4": "3", "5": "4", "6": "5", "7": "6", "8": "7", "9": "8"}
	for s := range strings.FieldsSeq(get("ORDER")) {
		left := get(s + "_LEFT")
		if now, ok := less[left]; ok {
			d.Areas[0] = bytes.Replace(d.Areas[0], []byte("\n"+s+"_LEFT="+left+"\n"), []byte("\n"+s+"_LEFT="+now+"\n"), 1)
			return s
		}
	}
	return ""
}

func TestContractTries(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Volatile: bootdisk.New,
		Fresh: func(*testing.T) boottest.Disk {
			return disk(env(512, "first=1", "ORDER=A B", "A_LEFT=g", "saved_entry=x y", "B_LEFT=g", "last=#"))
		},
		Open: func(m *boottest.Medium, booted string) (boot.Backend, error) {
			return grub.New(grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: grub.Tries}, booted)
		},
		Boot:     table,
		Caps:     boot.Caps{MaxTries: 9, SwitchAtomic: true},
		Recovery: requested,
		Others:   others,
	})
}

// Only Repair rebuilds a block that is empty, damaged or missing, and only around the running slot.
func TestRepair(t *testing.T) {
	for _, dialect := range []grub.Dialect{grub.RAUC, grub.Tries} {
		for name, data := range map[string][]byte{"zeros": make([]byte, 512), "largest": make([]byte, 64<<10), "gone": nil} {
			t.Run(string(dialect)+" "+name, func(t *testing.T) {
				m, created := boottest.NewMedium(data), []byte(nil)
				o := grub.Options{Slots: []string{"A", "B"}, Dialect: dialect, Name: "grubenv", Create: func(data []byte) error { created = data; return nil }}
				if data != nil {
					o.Area = m.Areas()[0]
				}
				backend := func(booted string) boot.Backend {
					t.Helper()
					b, err := grub.New(o, booted)
					if err != nil {
						t.Fatal(err)
					}
					return b
				}
				if _, err := backend("B").State(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "doctor --repair") {
					t.Errorf("State = %v; want ErrState with the remedy", err)
				}
				if err := boot.RequestRecovery(t.Context(), backend("B")); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
					t.Errorf("RequestRecovery = %v, %d writes; want ErrState and none", err, m.Writes())
				}
				if err := backend("").Repair(t.Context()); !errors.Is(err, boot.ErrState) || m.Writes() > 0 || created != nil {
					t.Errorf("Repair with no slot running = %v, %d writes; want ErrState and none", err, m.Writes())
				}
				if err := backend("B").Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				if data == nil {
					o.Area = boottest.NewMedium(created).Areas()[0]
					if len(created) != 1024 {
						t.Errorf("the new block has %d bytes", len(created))
					}
				}
				st, err := backend("B").State(t.Context())
				if err != nil || st.Next != "B" || st.Slots[0].Bootable || !st.Slots[1].Good {
					t.Errorf("after Repair State = %+v, %v; want B good and A unbootable", st, err)
				}
			})
		}
	}
}

// TestCreate: a missing block that cannot be created is an error.
func TestCreate(t *testing.T) {
	for want, create := range map[string]func([]byte) error{
		"grub-editenv create": nil, "creating grubenv: injected": func([]byte) error { return boottest.ErrInjected },
	} {
		b, err := grub.New(grub.Options{Slots: []string{"A", "B"}, Name: "grubenv", Create: create}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Repair(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), want) {
			t.Errorf("Repair = %v; want ErrState with %q", err, want)
		}
	}
	if _, err := grub.New(grub.Options{Slots: []string{"A"}, Dialect: "other"}, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New with another dialect = %v; want ErrState", err)
	}
}

// grub-editenv lists the result of every operation, and foreign variables survive in their place.
func TestGrubEditenv(t *testing.T) {
	if _, err := exec.LookPath("grub-editenv"); err != nil {
		t.Skip("grub-editenv is not installed")
	}
	path := filepath.Join(t.TempDir(), "grubenv")
	tool := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("grub-editenv", append([]string{path}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("grub-editenv %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	tool("create")
	tool("set", `first=a\b`, "saved_entry=x y", "ORDER=A B", "A_OK=1", "A_TRY=1", "B_OK=1", "B_TRY=0", "last=#not a comment")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := open(boottest.OpenFileArea(t, path), "A")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"mark good", func() error { return b.MarkGood(t.Context(), "A") }, "ORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=0\n"},
		{"invalidate", func() error { return b.Invalidate(t.Context(), "B") }, "ORDER=A\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n"},
		{"activate", func() error { return b.Activate(t.Context(), "B", 1) }, "ORDER=B A\nA_OK=1\nA_TRY=0\nB_OK=1\nB_TRY=0\n"},
		{"mark bad", func() error { return b.MarkBad(t.Context(), "B") }, "ORDER=A\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		want := "first=a\\b\nsaved_entry=x y\n" + step.want + "last=#not a comment\n"
		if got := tool("list"); got != want {
			t.Errorf("after %s grub-editenv lists\n%swant\n%s", step.name, got, want)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) {
		t.Errorf("the file has %d bytes; want %d", len(after), len(before))
	}
	tool("set", "A_TRY=1")
	if st, err := b.State(t.Context()); err != nil || st.Next != "" {
		t.Errorf("State = %+v, %v; want no slot with A tried and B bad", st, err)
	}
}

func TestBadBlocks(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "0 bytes"},
		{"signature alone", []byte("# GRUB Environment Block\n"), "25 bytes"},
		{"too large", env(64<<10+1, good...), "has 65537 bytes, expected at most 65536"},
		{"zeros", make([]byte, 1024), "does not begin"},
		{"hidden by a line without =", env(1024, "junk", "ORDER=A B"), "reads no line, its save_env changes line 3"},
		{"hidden by an empty line", env(1024, "", "ORDER=A B"), "reads no line, its save_env changes line 3"},
		{"repeated", env(1024, "ORDER=A B", "A_OK=1", "ORDER=B A"), "reads line 4, its save_env changes line 2"},
		{"NUL in a name", env(1024, "ORDER\x00X=A B"), "reads line 2, its save_env changes no line"},
		{"CR", env(1024, "ORDER=A B", "A_OK=1\r"), "expected 0 or 1"},
		{"no padding", append(env(1024, good...)[:60], bytes.Repeat([]byte("x"), 964)...), "inside a line"},
		{"quoted end", []byte("# GRUB Environment Block\na=b\\\n"), "inside a line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := boottest.NewMedium(c.data)
			b, err := open(m.Areas()[0], "A")
			if err != nil {
				t.Fatal(err)
			}
			for name, err := range map[string]error{
				"Invalidate": b.Invalidate(t.Context(), "B"), "Activate": b.Activate(t.Context(), "B", 1), "MarkGood": b.MarkGood(t.Context(), "A"),
			} {
				if !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s = %v; want ErrState with %q", name, err, c.want)
				}
			}
			if c.name == "too large" && !errors.Is(b.Repair(t.Context()), boot.ErrState) {
				t.Error("Repair of a file that is too large is no error")
			}
			if m.Writes() > 0 {
				t.Error("an invalid block was written")
			}
		})
	}
}

// Missing variables are added before all others. A full block is an error.
func TestRoom(t *testing.T) {
	m := boottest.NewMedium(env(1024, "# WARNING: do not edit", "x=y"))
	b, err := open(m.Areas()[0], "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	got := string(m.Snapshot()[0])
	first := strings.HasPrefix(got, "# GRUB Environment Block\n# WARNING: do not edit\n")
	if !first || !strings.Contains(got, "\nA_OK=1\n") || !strings.Contains(got, "\nx=y\n#") {
		t.Errorf("the block is %.200q", got)
	}
	for size, fits := range map[int]bool{67: true, 66: false, 64 << 10: true} { // signature, a=b, ORDER=A, and two variables of each slot
		m := boottest.NewMedium(env(size, "a=b"))
		if b, err = open(m.Areas()[0], "A"); err != nil {
			t.Fatal(err)
		}
		if err := b.MarkGood(t.Context(), "A"); (err == nil) != fits {
			t.Errorf("MarkGood in a block of %d bytes = %v; want success: %v", size, err, fits)
		}
	}
	full := boottest.NewMedium(env(60, "a=b", "c=234567890"))
	if b, err = open(full.Areas()[0], "A"); err != nil {
		t.Fatal(err)
	}
	if err := b.MarkGood(t.Context(), "A"); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "has room for") || full.Writes() > 0 {
		t.Errorf("MarkGood in a full block = %v, %d writes; want no room", err, full.Writes())
	}
}

func FuzzBlock(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { takes(t, data) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzBlock", 9, 5, func(v []string) bool { return takes(t, []byte(v[0])) })
}

// takes marks slot A good in an arbitrary block. It reports whether the block is valid.
func takes(t *testing.T, data []byte) bool {
	m := boottest.NewMedium(data)
	b, err := open(m.Areas()[0], "A")
	if err != nil {
		return false
	}
	if _, err := b.State(t.Context()); err != nil {
		return false
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		return true
	}
	st, err := b.State(t.Context())
	if err != nil || st.Next == "" {
		t.Fatalf("after mark good State = %+v, %v", st, err)
	}
	if len(m.Snapshot()[0]) != len(data) {
		t.Fatal("the size of the block changed")
	}
	return true
}

// State warns about more variables than fit in a sector.
func TestBeyondOneSector(t *testing.T) {
	used := len("# GRUB Environment Block\nfiller=\n" + strings.Join(good, "\n") + "\n")
	for _, c := range []struct{ filler, degraded int }{{300, 0}, {boot.Sector - used, 0}, {boot.Sector - used + 1, 1}, {500, 1}} {
		m := boottest.NewMedium(env(1024, append([]string{"filler=" + strings.Repeat("x", c.filler)}, good...)...))
		b, err := open(m.Areas()[0], "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || warnings(st) != c.degraded {
			t.Errorf("with %d bytes of others State = %+v, %v; want %d warnings", c.filler, st, err, c.degraded)
		}
	}
}

// warnings counts the findings above severity info.
func warnings(st boot.State) int {
	n := 0
	for _, f := range st.Findings {
		if f.Severity != boot.Info {
			n++
		}
	}
	return n
}

// An unreadable sector of the padding is reported, and the next change or Repair rewrites it.
func TestUnreadableSectors(t *testing.T) {
	boottest.UnreadableSectors(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return disk(env(1024, good...)) },
		Open:  func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas()[0], booted) },
		Boot:  func(d *boottest.Disk) string { return boottest.GRUBScript(d.Areas) },
	})
	for name, text := range map[string]string{"in a line": "x=####", "in a name": "####", "behind a line": "", "in the padding": "\n####"} {
		lines := []string{"ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "f="}
		head := len("# GRUB Environment Block\n" + strings.Join(lines, "\n"))
		lines[5] += strings.Repeat("y", boot.Sector-head-len(text)) + text
		switch name {
		case "in a name":
			lines[5] = lines[5][:100] + "\n" + lines[5][101:]
		case "behind a line":
			lines[5] = lines[5][:len(lines[5])-1] // a newline is the last byte of the sector
		}
		m := boottest.NewMedium(env(3*boot.Sector, lines...))
		b, err := open(unreadable{m.Areas()[0], boot.Sector}, "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		switch {
		case name == "in the padding" && err == nil:
		case name == "in the padding", !errors.Is(err, boot.ErrState), !strings.Contains(err.Error(), "cannot be read at 512"):
			t.Errorf("a sector that cannot be read %s: State = %+v, %v", name, st, err)
		}
	}
}

// unreadable is an area with a sector that cannot be read.
type unreadable struct {
	boot.Area
	off int64
}

func (u unreadable) ReadBackAt(p []byte, off int64) (int, error) {
	if off < u.off+boot.Sector && off+int64(len(p)) > u.off {
		return 0, boottest.ErrInjected
	}
	return u.Area.ReadBackAt(p, off)
}

// A slot in ORDER can be bad by its x_OK, as RAUC writes it and as in the first state of a device with one filled slot.
func TestBadInOrder(t *testing.T) {
	for ok, want := range map[string]int{"B_OK=1": 0, "B_OK=0": 0, "other=1": 1} {
		b, err := open(boottest.NewMedium(env(512, "ORDER=A B", "A_OK=1", "A_TRY=0", ok, "B_TRY=0")).Areas()[0], "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || warnings(st) != want {
			t.Errorf("with %s State = %+v, %v; want %d warnings", ok, st, err, want)
		}
	}
}

// Repair keeps only the line that GRUB loads of a repeated variable. A block whose variables are hidden is rebuilt.
func TestRepairAmbiguous(t *testing.T) {
	marks := []string{"x=y", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0"}
	for _, c := range []struct {
		name, booted string
		dialect      grub.Dialect
		first, last  string
		want         []string
	}{
		{"repeated", "", grub.RAUC, "ORDER=A", "ORDER=B A", append([]string{"ORDER=B A"}, marks...)},
		{"repeated tries", "", grub.Tries, "B_LEFT=1", "B_LEFT=2", append([]string{"B_LEFT=2"}, marks...)},
		{"name with NUL", "", grub.RAUC, "ORDER\x00X=B A", "z=", append(append([]string{"ORDER=B A"}, marks...), "z=")},
		{"hidden", "A", grub.RAUC, "junk\nORDER=B A", "z=", []string{"B_TRY=0", "B_OK=0", "A_TRY=0", "A_OK=1", "ORDER=A", "x=y", "z="}},
	} {
		m := boottest.NewMedium(env(1024, append(append([]string{c.first}, marks...), c.last)...))
		o := grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: c.dialect}
		b, err := grub.New(o, c.booted)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) {
			t.Errorf("%s: State = %v; want ErrState", c.name, err)
		}
		if elsewhere, err := grub.New(o, ""); err != nil || c.booted != "" && !errors.Is(elsewhere.Repair(t.Context()), boot.ErrState) {
			t.Errorf("%s: Repair without a slot that runs is no error, or New = %v", c.name, err)
		}
		if err := b.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := env(1024, c.want...); !bytes.Equal(m.Snapshot()[0], want) {
			t.Errorf("%s: after Repair the block is %.120q; want %.120q", c.name, m.Snapshot()[0], want)
		}
	}
}

// TestHiddenRequest: a request of the recovery that GRUB would not load is refused.
func TestHiddenRequest(t *testing.T) {
	m := boottest.NewMedium(env(512, append(slices.Clone(good), "junk", "next_entry=0")...))
	b, err := open(m.Areas()[0], "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := boot.RequestRecovery(t.Context(), b); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
		t.Errorf("RequestRecovery = %v and wrote %d sectors; want ErrState and none", err, m.Writes())
	}
}

// Scripts may have any default for an unset variable, so the variable of a slot that is marked bad is set. A bad slot is not written again.
func TestBadIsExplicit(t *testing.T) {
	for _, c := range []struct {
		dialect grub.Dialect
		lines   []string
		order   bool
		want    string
	}{
		{grub.RAUC, []string{"A_OK=1", "A_TRY=0"}, false, "\nB_OK=0\n"},
		{grub.RAUC, []string{"ORDER=A B", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=1"}, true, "\nB_OK=0\n"},
		{grub.Tries, []string{"A_LEFT=g", "B_OK=1"}, false, "\nB_LEFT=0\n"},
	} {
		m := boottest.NewMedium(env(512, c.lines...))
		b, err := grub.New(grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: c.dialect}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || strings.Contains(fmt.Sprint(st.Findings), "ORDER is not set") == c.order {
			t.Errorf("%s: State = %+v, %v; want a finding unless ORDER is set", c.dialect, st, err)
		}
		if err := b.MarkBad(t.Context(), "B"); err != nil || !strings.Contains(string(m.Snapshot()[0]), c.want) {
			t.Errorf("%s: MarkBad = %v, %q; want %q", c.dialect, err, m.Snapshot()[0], c.want)
		}
	}
	m := boottest.NewMedium(env(512, "B_OK=0", "B_TRY=1", "ORDER=A", "A_OK=1", "A_TRY=0"))
	b, err := open(m.Areas()[0], "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.MarkGood(t.Context(), "A"), b.MarkBad(t.Context(), "B")); err != nil || m.Writes() > 0 {
		t.Errorf("MarkGood of a good slot and MarkBad of a bad one = %v and wrote %d sectors", err, m.Writes())
	}
}

// A slot in ORDER that is not OK does not boot when the script has restored all tries.
func TestForecastNotOK(t *testing.T) {
	b, err := open(boottest.NewMedium(env(512, "ORDER=B A", "A_OK=1", "A_TRY=1", "B_OK=0", "B_TRY=0")).Areas()[0], "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || strings.Join(st.Boots, ".") != ".A." {
		t.Errorf("State = %+v, %v; want boots of nothing, A, nothing", st, err)
	}
}

// written is an area that records its writes.
type written struct {
	boot.Area
	spans *[][2]int64
}

func (w written) WriteAt(p []byte, off int64) (int, error) {
	*w.spans = append(*w.spans, [2]int64{off, off + int64(len(p))})
	return w.Area.WriteAt(p, off)
}

// TestWritesOneSector: a change of variables in the first sector writes that sector alone.
func TestWritesOneSector(t *testing.T) {
	m := boottest.NewMedium(env(2048, append(slices.Clone(good), "more="+strings.Repeat("x", 1000))...))
	var spans [][2]int64
	b, err := open(written{m.Areas()[0], &spans}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil || !slices.Equal(spans, [][2]int64{{0, 512}}) {
		t.Errorf("Activate = %v, and wrote %v; want the first sector", err, spans)
	}
}

// TestRebuiltIsUnambiguous: a block whose variables are invalid and repeated is rebuilt so that GRUB reads and writes the same lines.
func TestRebuiltIsUnambiguous(t *testing.T) {
	m := boottest.NewMedium(env(512, "# kept", "A_OK=2", "ORDER=B A", "A_OK=3", "junk", "B_OK=7", "keep=me", "ORDER=A",
		"B_TRY\x00X=1", "B_TRY\x00Y=0", "# too"))
	b, err := open(m.Areas()[0], "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := b.State(t.Context())
	want := env(512, "# kept", "B_TRY=0", "B_OK=0", "A_TRY=0", "A_OK=1", "ORDER=A", "keep=me", "# too")
	if got := m.Snapshot()[0]; err != nil || st.Next != "A" || st.Slots[1].Bootable || !bytes.Equal(got, want) {
		t.Errorf("State = %+v, %v\n%.200q; want\n%.200q", st, err, got, want)
	}
}

// TestRepairEscapes: a value that GRUB loads with a backslash keeps it.
func TestRepairEscapes(t *testing.T) {
	m := boottest.NewMedium(env(512, "ORDER=A", `ORDER=A \\B`, "A_OK=1", "A_TRY=0"))
	b, err := open(m.Areas()[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Repair(t.Context()); err != nil || !strings.Contains(string(m.Snapshot()[0]), "\nORDER=A \\\\B\n") {
		t.Errorf("Repair = %v, and the block is %.80q", err, m.Snapshot()[0])
	}
}

// TestTriesOfScript: a value that the script does not read as a number of tries counts as none.
func TestTriesOfScript(t *testing.T) {
	for value, want := range map[string]int{"9": 9, "9\x00x": 9, `\9`: 9, `\\9`: 0, "0": 0, "10": 0, "15": 0, "99": 0, "-1": 0, "x": 0, "": 0} {
		m := boottest.NewMedium(env(512, "ORDER=B A", "A_LEFT=g", "B_LEFT="+value))
		b, err := grub.New(grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: grub.Tries}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Slots[1].TriesLeft != want || st.Slots[1].Bootable != (want > 0) {
			t.Errorf("B_LEFT=%s is %+v, %v; want %d tries", value, st.Slots[1], err, want)
		}
	}
}

// TestFindings: each problem of a block has its finding.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name    string
		dialect grub.Dialect
		lines   []string
		want    string // in the evidence of a finding; "" means none beyond those of the state
	}{
		{"sound", grub.RAUC, good, ""},
		{"sound behind junk", grub.RAUC, append([]string{"junk", "x=y"}, good...), ""},
		{"sound, ORDER last", grub.RAUC, []string{"A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0", "ORDER=A B"}, ""},
		{"sound tries", grub.Tries, []string{"ORDER=A B", "A_LEFT=g", "B_LEFT=3"}, ""},
		{"the other dialect", grub.Tries, good, "has A_OK and no variable of the dialect tries"},
		{"the other dialect", grub.RAUC, []string{"ORDER=A B", "B_LEFT=3"}, "has B_LEFT and no variable of the dialect rauc"},
		{"both dialects", grub.RAUC, append(slices.Clone(good), "A_LEFT=g"), ""},
		{"no order", grub.RAUC, []string{"A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0"}, "ORDER is not set"},
		{"not in the order", grub.RAUC, []string{"ORDER=A", "A_OK=1", "A_TRY=0", "B_OK=1", "B_TRY=0"}, "slot B has B_OK=1, but is not in ORDER"},
		{"not OK", grub.RAUC, []string{"ORDER=A B", "A_OK=1", "A_TRY=0"}, "slot B is in ORDER, and B_OK is not set"},
		{"an unknown slot", grub.RAUC, append([]string{"ORDER=A B C"}, good[2:]...), `ORDER lists "C"`},
	} {
		m := boottest.NewMedium(env(1024, c.lines...))
		b, err := grub.New(grub.Options{Area: m.Areas()[0], Slots: []string{"A", "B"}, Dialect: c.dialect}, "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := st.Findings[:len(st.Findings)-len(boot.Disagreements(st))]
		if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(f boot.Finding) bool { return strings.Contains(f.Evidence, c.want) }) {
			t.Errorf("%s, %s: %v; want %q", c.name, c.dialect, found, c.want)
		}
	}
}
