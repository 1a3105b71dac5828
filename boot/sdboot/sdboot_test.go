package sdboot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/sdboot"
)

const template = "title demo\nlinux /SLOT/vmlinuz\noptions updater.slot=SLOT\n"

func fresh() map[string]string {
	files := map[string]string{"loader/loader.conf": "timeout 0\n", "loader/entries/zz-rescue.conf": "title rescue\nsort-key zz\nlinux /rescue\n"}
	for i, s := range []string{"B", "A"} {
		t := strings.ReplaceAll(template, "SLOT", s)
		files["loader/updater/"+s+".conf"] = t
		files[fmt.Sprintf("loader/entries/updater-%d-%s.conf", i+1, s)] = fmt.Sprintf("%ssort-key updater\nversion %d\n", t, i+1)
	}
	return files
}

// loader models systemd-boot, written independently of the backend: it identifies entries by their content and finds the
// counter behind the last plus of the name.
func loader(d *boottest.Disk) string {
	best, bestBad, bestVersion := "", true, -1
	left := func(name string) (n, done int, counted bool) {
		i := strings.LastIndex(name, "+")
		if i < 0 {
			return 0, 0, false
		}
		if c, _ := fmt.Sscanf(name[i:], "+%d-%d.conf", &n, &done); c == 2 {
			return n, done, true
		}
		c, _ := fmt.Sscanf(name[i:], "+%d.conf", &n)
		return n, 0, c == 1
	}
	for _, name := range slices.Sorted(maps.Keys(d.Files)) {
		text := d.Files[name]
		if !strings.HasPrefix(name, "loader/entries/") || !strings.HasSuffix(name, ".conf") || !strings.Contains(text, "\nsort-key updater\n") {
			continue
		}
		version := 0
		fmt.Sscanf(text[strings.Index(text, "\nversion "):], "\nversion %d", &version)
		n, _, counted := left(name)
		bad := counted && n == 0
		if best == "" || bestBad && !bad || bestBad == bad && version >= bestVersion {
			best, bestBad, bestVersion = name, bad, version
		}
	}
	if best == "" {
		return ""
	}
	text := d.Files[best]
	if n, done, counted := left(best); counted && n > 0 {
		delete(d.Files, best)
		d.Files[fmt.Sprintf("%s+%d-%d.conf", best[:strings.LastIndex(best, "+")], n-1, done+1)] = text
	}
	_, slot, _ := strings.Cut(text, "updater.slot=")
	return slot[:1]
}

func open(dir sdboot.Dir, booted string) (*sdboot.Backend, error) {
	return sdboot.New(sdboot.Options{Dir: dir, Slots: []string{"A", "B"}}, booted)
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return boottest.Disk{Files: fresh()} },
		Open: func(m *boottest.Medium, booted string) (boot.Backend, error) {
			return open(boottest.Files{M: m}, booted)
		},
		Boot: loader,
		Caps: boot.Caps{MaxTries: 99, SwitchAtomic: true},
		Others: func(d boottest.Disk) []string {
			return []string{d.Files["loader/loader.conf"], d.Files["loader/entries/zz-rescue.conf"], d.Files["loader/updater/A.conf"]}
		},
		AlwaysBoots: true,
	})
}

// images returns an ESP with unified kernel images, one of them foreign.
func images() map[string]string {
	files := boottest.ImageFiles()
	files["EFI/Linux/rescue.efi"] = boottest.Image("ID=zz-rescue\nVERSION_ID=9\n", "rescue")
	return files
}

func TestContractImages(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return boottest.Disk{Files: images()} },
		Open: func(m *boottest.Medium, booted string) (boot.Backend, error) {
			return open(boottest.Files{M: m}, booted)
		},
		Boot: boottest.SystemdBootImages,
		Caps: boot.Caps{MaxTries: 99, SwitchAtomic: true},
		Others: func(d boottest.Disk) []string {
			return []string{d.Files["loader/loader.conf"], d.Files["EFI/Linux/rescue.efi"], d.Files["EFI/updater/A.efi"], d.Files["EFI/updater/B.efi"]}
		},
		AlwaysBoots: true,
	})
}

// The known-good entry never has a counter, since a rename by the firmware can lose the name.
func TestKnownGoodEntryIsNeverCounted(t *testing.T) {
	t.Run("Type #1", func(t *testing.T) { neverCounted(t, fresh(), "-A.conf", "version") })
	t.Run("images", func(t *testing.T) { neverCounted(t, images(), "-A.efi", "updater.slot=A") })
}

func neverCounted(t *testing.T, files map[string]string, suffix, content string) {
	m := boottest.New(boottest.Disk{Files: files})
	b, err := open(boottest.Files{M: m}, "A")
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return b.Invalidate(t.Context(), "B") },
		func() error { return b.Activate(t.Context(), "B", 3) },
		func() error { return b.MarkGood(t.Context(), "A") },
		func() error { return b.Activate(t.Context(), "A", 3) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		m.CrashDisks(func(d boottest.Disk) {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(d.Files)), func(n string) bool {
				return strings.HasSuffix(n, suffix) && strings.Contains(d.Files[n], content)
			}) {
				t.Fatalf("no entry of slot A without a counter: %v", slices.Sorted(maps.Keys(d.Files)))
			}
		})
	}
}

// A power cut during a rename by the firmware has left neither name. The other slot boots, and Repair creates a new entry
// for the running slot.
func TestEntryGone(t *testing.T) {
	files := fresh()
	delete(files, "loader/entries/updater-2-A.conf")
	m := boottest.New(boottest.Disk{Files: files})
	b, err := open(boottest.Files{M: m}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" || st.Slots[0].Bootable {
		t.Fatalf("State = %+v, %v; want slot B, and A unbootable", st, err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || !st.Slots[0].Good || st.Slots[0].TriesLeft != -1 {
		t.Errorf("after Repair State = %+v, %v; want A good and not counted", st, err)
	}
}

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(files map[string]string)
		want     string
		variable string // LoaderEntryDefault
	}{
		"two entries": {change: func(f map[string]string) {
			f["loader/entries/updater-9-A+2.conf"] = f["loader/entries/updater-2-A.conf"]
		}, want: "slot A has 2 entries"},
		"firmware program first": {change: func(f map[string]string) { f["loader/entries/x.conf"] = "sort-key a\nefi /x\n" },
			want: "x.conf has sort-key a and boots before every slot"},
		"image first": {change: func(f map[string]string) { f["loader/entries/x.conf"] = "sort-key a\nuki /x\n" },
			want: "x.conf has sort-key a and boots before every slot"},
		"same sort-key": {change: func(f map[string]string) { f["loader/entries/x.conf"] = "sort-key updater\nlinux /x\n" },
			want: "x.conf has the sort-key of the slots"},
		"two programs": {change: func(f map[string]string) { f["loader/entries/updater-2-A.conf"] += "efi /x\n" },
			want: "ignores the entry loader/entries/updater-2-A.conf"},
		"other sort-key": {change: func(f map[string]string) { f["loader/entries/updater-1-B.conf"] += "sort-key updates\n" },
			want: `updater-1-B.conf has sort-key "updates" and version "1"`},
		"default": {change: func(f map[string]string) { f["loader/loader.conf"] = "default updater-*\n" }, want: "overrides boot counting"},
		"earlier sort": {change: func(f map[string]string) {
			f["loader/entries/x.CONF"] = "sort-key zzz\r\tsort-key \t\"aaa\" \nlinux /x\n"
		}, want: "x.CONF has sort-key aaa and boots before every slot"},
		"upper case": {change: func(f map[string]string) {
			f["loader/entries/UPDATER-9-a+2.Conf"] = f["loader/entries/updater-2-A.conf"]
		}, want: "slot A has 2 entries"},
		"last default": {change: func(f map[string]string) {
			f["loader/loader.conf"] = "timeout 0\ndefault \n#default a\n default b\n"
		}, want: "has default b"},
		"no program": {change: func(f map[string]string) {
			f["loader/entries/updater-2-A.conf"] = "sort-key updater\nversion 2\n"
		}, want: "ignores the entry loader/entries/updater-2-A.conf"},
		"other version": {change: func(f map[string]string) {
			f["loader/entries/updater-1-B.conf"] += "version 7\n"
		}, want: `updater-1-B.conf has sort-key "updater" and version "7"`},
		"no template":  {change: func(f map[string]string) { delete(f, "loader/updater/B.conf") }, want: "slot B has no template"},
		"EFI variable": {change: func(map[string]string) {}, want: "LoaderEntryDefault is x", variable: "x"},
		"nothing to boot": {change: func(f map[string]string) {
			delete(f, "loader/entries/updater-2-A.conf")
			delete(f, "loader/entries/updater-1-B.conf")
		}, want: "finds no slot"},
	} {
		files := fresh()
		c.change(files)
		b, err := sdboot.New(sdboot.Options{
			Dir: boottest.Files{M: boottest.New(boottest.Disk{Files: files})}, Slots: []string{"A", "B"},
			Default: func() (string, error) { return c.variable, nil },
		}, "")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil || !slices.ContainsFunc(st.Findings, func(f boot.Finding) bool { return strings.Contains(f.Evidence, c.want) }) {
			t.Errorf("%s: State = %+v, %v; want %q", name, st.Findings, err, c.want)
		}
	}
}

// TestNoFindings: a file that the boot loader does not list as an entry, or boots after the slots, is not a finding.
func TestNoFindings(t *testing.T) {
	const first = "sort-key a\nlinux /x\n"
	for name, text := range map[string]string{
		"loader/entries/.x.conf": first, "loader/entries/auto-x.conf": first, "loader/entries/AUTO-x.conf": first, "loader/entries/x.txt": first,
		"loader/entries/none.conf": "sort-key a\n", "loader/entries/two.conf": first + "efi /x\n", "loader/entries/later.conf": "sort-key v\nlinux /x\n",
		"loader/entries/keyless.conf": "linux /x\n", "loader/entries/quote.conf": "sort-key \"\nlinux /x\nsort-key \"v\"\n",
		"loader/entries/nul.conf": "sort-key v\nlinux /x\n\x00\nsort-key a\n", "EFI/Linux/auto-x.efi": boottest.Image("ID=a\n", ""),
		"loader/loader.conf": "#default x\ndefaults x\ndefault\n",
	} {
		files := fresh()
		files[name] = text
		b, err := sdboot.New(sdboot.Options{Dir: boottest.Files{M: boottest.New(boottest.Disk{Files: files})}, Slots: []string{"A", "B"},
			Default: func() (string, error) { return "", nil }}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != "A" || len(st.Findings) > 0 {
			t.Errorf("with %s State = %+v, %v; want no finding", name, st, err)
		}
	}
	_, b := onMedium(t, fresh(), "A")
	b.Default = func() (string, error) { return "", boottest.ErrInjected }
	if _, err := b.State(t.Context()); !errors.Is(err, boottest.ErrInjected) {
		t.Errorf("State with a variable that cannot be read = %v; want the cause", err)
	}
}

// A slot with an invalid template is not touched, since it could not be activated again.
func TestTemplateFirst(t *testing.T) {
	long := "linux /x\n" + strings.Repeat("#", 64<<10-9)
	for text, ok := range map[string]bool{
		template: true, template + "version 7\n": false, template + "sort-key x\n": false, "title x\n": false, long: true, long + "#": false,
	} {
		files := fresh()
		files["loader/updater/B.conf"] = text
		m, b := onMedium(t, files, "A")
		err := b.Invalidate(t.Context(), "B")
		if ok != (err == nil) || !ok && (!errors.Is(err, boot.ErrState) || m.Writes() > 0) {
			t.Errorf("Invalidate with the template %.80q = %v, %d writes; want success: %v", text, err, m.Writes(), ok)
		}
	}
}

// TestLastBootable: an entry that the boot loader ignores, or that has no boots left, is no reason to give up the only other one.
func TestLastBootable(t *testing.T) {
	for name, change := range map[string]func(f map[string]string){
		"two programs": func(f map[string]string) { f["loader/entries/updater-2-A.conf"] += "efi /x\n" },
		"ignored":      func(f map[string]string) { f["loader/entries/updater-2-A.conf"] = "title x\n" },
		"none left": func(f map[string]string) {
			f["loader/entries/updater-2-A+0-3.conf"] = f["loader/entries/updater-2-A.conf"]
			delete(f, "loader/entries/updater-2-A.conf")
		},
		"gone": func(f map[string]string) { delete(f, "loader/entries/updater-2-A.conf") },
	} {
		files := fresh()
		change(files)
		m, b := onMedium(t, files, "A")
		for what, err := range map[string]error{"Invalidate": b.Invalidate(t.Context(), "B"), "MarkBad": b.MarkBad(t.Context(), "B")} {
			if !errors.Is(err, boot.ErrRefused) || m.Writes() > 0 {
				t.Errorf("%s: %s of the other slot = %v, %d writes; want ErrRefused and none", name, what, err, m.Writes())
			}
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
			t.Errorf("%s: State = %+v, %v; want B next", name, st, err)
		}
		if err := b.MarkGood(t.Context(), "A"); err != nil || m.Disk().Files["loader/entries/updater-2-A.conf"] == "" && name != "gone" {
			t.Errorf("%s: MarkGood = %v, and the files are %q", name, err, slices.Sorted(maps.Keys(m.Disk().Files)))
		}
		if st, err := b.State(t.Context()); err != nil || !st.Slots[0].Good || !st.Slots[0].Bootable {
			t.Errorf("%s: after MarkGood State = %+v, %v", name, st, err)
		}
	}
}

// TestRest: nothing is lost where no entry is bootable, and mark good leaves one entry of the slot.
func TestRest(t *testing.T) {
	files := fresh()
	files["loader/entries/updater-2-A.conf"] = "title x\n"
	delete(files, "loader/entries/updater-1-B.conf")
	m, b := onMedium(t, files, "")
	if err := b.Invalidate(t.Context(), "A"); err != nil || m.Disk().Files["loader/entries/updater-2-A.conf"] != "" {
		t.Errorf("Invalidate with nothing to lose = %v", err)
	}
	writes := m.Writes()
	if err := b.Repair(t.Context()); err != nil || m.Writes() > writes {
		t.Errorf("Repair outside every slot = %v and wrote %d files; want none", err, m.Writes()-writes)
	}
	files = fresh()
	files["loader/entries/updater-3-A+2-1.conf"] = template + "sort-key updater\nversion 3\n"
	m, b = onMedium(t, files, "A")
	if st, err := b.State(t.Context()); err != nil || st.Slots[0].Good || st.Slots[0].TriesLeft != 2 {
		t.Errorf("with two entries State = %+v, %v; want the one that boots first", st, err)
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	d := m.Disk().Files
	if d["loader/entries/updater-3-A.conf"] == "" || d["loader/entries/updater-2-A.conf"] != "" || d["loader/entries/updater-3-A+2-1.conf"] != "" {
		t.Errorf("after MarkGood the files are %q", slices.Sorted(maps.Keys(d)))
	}
	files["loader/entries/updater-10-A+2-1.conf"] = template + "sort-key updater\nversion 10\n" // it is listed first
	m, b = onMedium(t, files, "A")
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d = m.Disk().Files; d["loader/entries/updater-10-A+2-1.conf"] == "" || d["loader/entries/updater-2-A.conf"] != "" {
		t.Errorf("after Repair the files are %q", slices.Sorted(maps.Keys(d)))
	}
}

// TestRepairKeepsFallback: of the entries that an activation left when it was cut off, Repair keeps the one that boots.
func TestRepairKeepsFallback(t *testing.T) {
	for _, c := range []struct {
		booted string
		only   bool // the entry without tries left is the only one of B
		want   []string
	}{
		{"A", false, []string{"updater-1-B", "updater-2-A"}},
		{"B", false, []string{"updater-2-A", "updater-3-B"}},
		{"A", true, []string{"updater-2-A", "updater-3-B+0-1"}},
	} {
		files := fresh()
		files["loader/entries/updater-3-B+0-1.conf"] = template + "sort-key updater\nversion 3\n"
		if c.only {
			delete(files, "loader/entries/updater-1-B.conf")
		}
		m, b := onMedium(t, files, c.booted)
		if err := b.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for name := range m.Disk().Files {
			if entry, ok := strings.CutPrefix(name, "loader/entries/updater-"); ok {
				got = append(got, "updater-"+strings.TrimSuffix(entry, ".conf"))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s runs: after Repair the entries are %q; want %q", c.booted, got, c.want)
		}
	}
}

// TestRestoreGeneration: the restored slot gets a generation before every other bootable slot, and is refused where there is none.
func TestRestoreGeneration(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []string // of A and B
		want    string   // the entry of B; "" is a refusal
	}{
		{"gone", []string{"updater-2-A"}, "updater-1-B"},
		{"first generation", []string{"updater-1-A"}, "updater-0-B"},
		{"no generation before", []string{"updater-0-A"}, ""},
		{"on trial before", []string{"updater-5-A", "updater-7-B+0-1"}, "updater-4-B"},
		{"on trial behind", []string{"updater-5-A", "updater-3-B+2"}, "updater-4-B"},
		{"good behind", []string{"updater-5-A", "updater-3-B"}, "updater-3-B"},
		{"beside a spent one", []string{"updater-5-A", "updater-1-A+0-2"}, "updater-4-B"},
		{"edited", []string{"updater-5-A"}, "updater-4-B"},
		{"behind both", []string{"updater-5-A", "updater-3-A+1"}, "updater-2-B"},
	} {
		files := map[string]string{"loader/updater/A.conf": template, "loader/updater/B.conf": template}
		for _, e := range c.entries {
			generation, _, _ := strings.Cut(strings.TrimPrefix(e, "updater-"), "-")
			files["loader/entries/"+e+".conf"] = template + "sort-key updater\nversion " + generation + "\n"
		}
		m, b := onMedium(t, files, "A")
		if c.name == "edited" {
			files["loader/entries/updater-5-A.conf"] += "version 1\n"
			m, b = onMedium(t, files, "A")
		}
		err := b.RestoreFallback(t.Context(), "B")
		if c.name == "edited" {
			if !errors.Is(err, boot.ErrState) {
				t.Errorf("RestoreFallback before an entry of an edited version = %v; want ErrState", err)
			}
			continue
		}
		var got []string
		for name := range m.Disk().Files {
			if base, ok := strings.CutPrefix(name, "loader/entries/"); ok && strings.Contains(base, "-B") {
				got = append(got, strings.TrimSuffix(base, ".conf"))
			}
		}
		if list := strings.Join(got, " "); list != c.want || c.want == "" && !errors.Is(err, boot.ErrRefused) || c.want != "" && err != nil {
			t.Errorf("%s: RestoreFallback = %v, and slot B has the entries %q; want %q", c.name, err, list, c.want)
		}
	}
}

// TestGenerations: a new entry comes behind all others, whatever slot they belong to, up to the last generation.
func TestGenerations(t *testing.T) {
	files := fresh()
	files["loader/entries/updater-8-B+0-1.conf"] = files["loader/entries/updater-1-B.conf"]
	m, b := onMedium(t, files, "A")
	if err := b.Activate(t.Context(), "B", 1); err != nil || m.Disk().Files["loader/entries/updater-9-B+1.conf"] == "" {
		t.Errorf("Activate = %v, and the files are %q", err, slices.Sorted(maps.Keys(m.Disk().Files)))
	}
	files = fresh()
	files["loader/entries/updater-999999998-A.conf"] = files["loader/entries/updater-2-A.conf"]
	m, b = onMedium(t, files, "A")
	if err := b.Activate(t.Context(), "B", 1); err != nil || m.Disk().Files["loader/entries/updater-999999999-B+1.conf"] == "" {
		t.Errorf("Activate = %v, and the files are %q", err, slices.Sorted(maps.Keys(m.Disk().Files)))
	}
}

// TestPrefix: entries with another prefix are not the updater's.
func TestPrefix(t *testing.T) {
	files := fresh()
	dir := boottest.Files{M: boottest.New(boottest.Disk{Files: files})}
	b, err := sdboot.New(sdboot.Options{Dir: dir, Slots: []string{"A", "B"}, Prefix: "demo"}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "" {
		t.Errorf("State = %+v, %v; want no slot", st, err)
	}
	o := sdboot.Options{Slots: []string{"A", "B"}, Prefix: "demo"}
	if a, b := sdboot.Selected(o, "demo-2-a.conf"), sdboot.Selected(o, "updater-2-a.conf"); a != "A" || b != "" {
		t.Errorf("Selected = %q and %q; want A and none", a, b)
	}
	if _, err := sdboot.New(sdboot.Options{}, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New without slots = %v; want ErrState", err)
	}
}

// The boot loader orders by the content of Type #1 entries, not by their names.
func TestEditedEntries(t *testing.T) {
	for name, c := range map[string]struct{ more, next string }{
		"version":       {"version 9\n", "B"},
		"older version": {"version 9\nversion 1\n", "A"},
		"sort-key":      {"sort-key a\n", "B"},
		"machine-id":    {"machine-id 0\n", "A"},
	} {
		files := fresh()
		files["loader/entries/updater-1-B.conf"] += c.more
		b, err := open(boottest.Files{M: boottest.New(boottest.Disk{Files: files})}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != c.next {
			t.Errorf("%s: State = %+v, %v; want slot %s", name, st, err, c.next)
		}
	}
	files := fresh()
	files["loader/entries/updater-1-B.conf"] += "machine-id 0\n"
	files["loader/entries/updater-2-A.conf"] += "machine-id 1\n"
	_, b := onMedium(t, files, "A")
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
		t.Errorf("State = %+v, %v; want the slot of the first machine-id, B", st, err)
	}
	files = fresh()
	files["loader/entries/updater-1-B.conf"] += "sort-key a\n"
	b, err := open(boottest.Files{M: boottest.New(boottest.Disk{Files: files})}, "B")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "A", 1); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "does not boot next") {
		t.Errorf("Activate behind an earlier sort-key = %v; want ErrState", err)
	}
}

// After the last generation Activate changes nothing: the name of a later one would not be recognized.
func TestLastGeneration(t *testing.T) {
	files := fresh()
	files["loader/entries/updater-999999999-A.conf"] = files["loader/entries/updater-2-A.conf"]
	m := boottest.New(boottest.Disk{Files: files})
	b, err := open(boottest.Files{M: m}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
		t.Errorf("Activate = %v, %d writes; want ErrState and none", err, m.Writes())
	}
}

func TestSelected(t *testing.T) {
	for id, want := range map[string]string{
		"updater-2-A.conf": "A", "updater-2-a.conf": "A", "updater-3-b+2-1.efi": "B", "updater-3-b.efi@debug": "B", "updater-3-b": "B",
		"updater-11-B+0-3.conf": "B", "updater-3-B": "B", "other-3-b.efi": "", "other.conf": "", "updater-3-C.conf": "",
	} {
		if got := sdboot.Selected(sdboot.Options{Slots: []string{"A", "B"}}, id); got != want {
			t.Errorf("Selected(%q) = %q; want %q", id, got, want)
		}
	}
}

// An update on a real folder.
func TestFolder(t *testing.T) {
	t.Run("Type #1", func(t *testing.T) {
		onFolder(t, fresh(), "loader/entries", "[- updater-2-A.conf - updater-3-B.conf - zz-rescue.conf]")
	})
	t.Run("images", func(t *testing.T) {
		onFolder(t, images(), "EFI/Linux", "[- rescue.efi - updater-2-A.efi - updater-3-B.efi]")
	})
}

func onFolder(t *testing.T, files map[string]string, entries, want string) {
	dir := t.TempDir()
	if err := boottest.WriteFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	f, err := sdboot.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Mkdir(filepath.Join(dir, "loader/x.conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := f.List()
	if err != nil || !slices.Contains(names, "loader/loader.conf") || slices.Contains(names, "loader/x.conf") || len(names) != len(files) {
		t.Errorf("List = %q, %v; want the files", names, err)
	}
	as := func(booted string) *sdboot.Backend {
		b, err := open(f, booted)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, do := range []func() error{
		func() error { return as("A").Invalidate(t.Context(), "B") },
		func() error { return as("A").Activate(t.Context(), "B", 3) },
		func() error { return as("B").MarkGood(t.Context(), "B") },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(filepath.Join(dir, entries))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(list); got != want {
		t.Errorf("the entries are %s; want %s", got, want)
	}
}

// openFolder opens a folder of this machine as an ESP, until the end of the test.
func openFolder(t *testing.T, dir string) (*sdboot.Folder, *sdboot.Backend) {
	t.Helper()
	f, err := sdboot.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b, err := open(f, "")
	if err != nil {
		t.Fatal(err)
	}
	return f, b
}

// TestNewFolder: the first entry is written where there is no folder for entries.
func TestNewFolder(t *testing.T) {
	dir := t.TempDir()
	if err := boottest.WriteFiles(dir, map[string]string{"loader/updater/A.conf": template}); err != nil {
		t.Fatal(err)
	}
	_, b := openFolder(t, dir)
	if err := b.Activate(t.Context(), "A", 1); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "loader/entries/updater-1-A+1.conf")); err != nil || !strings.HasSuffix(string(got), "\nversion 1\n") {
		t.Errorf("the entry is %q, %v", got, err)
	}
}

func FuzzEntry(f *testing.F) {
	f.Fuzz(func(t *testing.T, name, text string) { takes(t, name, text) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzEntry", 10, 5, func(v []string) bool { return takes(t, v[0], v[1]) })
}

// takes activates slot B beside an arbitrary entry. It reports whether that entry belongs to a slot.
func takes(t *testing.T, name, text string) bool {
	files := fresh()
	name = "loader/entries/" + name
	files[name] = text
	b, err := open(boottest.Files{M: boottest.New(boottest.Disk{Files: files})}, "A")
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil && !errors.Is(err, boot.ErrState) {
		t.Fatal(err)
	} else if err == nil {
		if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
			t.Fatalf("beside %q, activated: State = %+v, %v", name, st, err)
		}
	}
	return slices.ContainsFunc(before.Findings, func(f boot.Finding) bool { return strings.Contains(f.Evidence, "entries") }) || before.Next == "B"
}

// watched is a folder that records its operations and can store a wrong byte.
type watched struct {
	boottest.Files
	log   *[]string
	spoil func(data []byte) []byte
}

func (w watched) Write(name string, r io.Reader) error {
	*w.log = append(*w.log, "write")
	data, err := io.ReadAll(r)
	return errors.Join(err, w.Files.Write(name, bytes.NewReader(w.spoil(data))))
}

func (w watched) Rename(from, to string) error {
	*w.log = append(*w.log, "rename")
	return w.Files.Rename(from, to)
}

func (w watched) Sync() error {
	*w.log = append(*w.log, "sync")
	return w.Files.Sync()
}

// TestEntryIsDurable: an entry has its content on the medium before its name, and is compared after that.
func TestEntryIsDurable(t *testing.T) {
	large := images()
	for name, text := range large {
		if strings.Contains(name, "B.efi") {
			large[name] = text + strings.Repeat("x", 200<<10)
		}
	}
	for _, files := range []map[string]string{fresh(), large} {
		for change, spoil := range map[string]func(data []byte) []byte{
			"": func(data []byte) []byte { return data }, "a byte": func(data []byte) []byte { data[len(data)-1] ^= 1; return data },
			"cut": func(data []byte) []byte { return data[:len(data)-1] }, "more": func(data []byte) []byte { return append(data, 'x') },
		} {
			var log []string
			b, err := open(watched{boottest.Files{M: boottest.New(boottest.Disk{Files: maps.Clone(files)})}, &log, spoil}, "A")
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(b.Invalidate(t.Context(), "B"), b.Activate(t.Context(), "B", 3))
			if spoiled := change != ""; spoiled != errors.Is(err, boot.ErrState) || !spoiled && err != nil {
				t.Errorf("stored with %q changed: Activate = %v", change, err)
			}
			if !strings.Contains(strings.Join(log, " "), "write sync rename sync") {
				t.Errorf("the operations are %v", log)
			}
		}
	}
}

// broken is a folder in which the file of one name cannot be read; how is the operation that fails first.
type broken struct {
	boottest.Files
	name, how string
}

func (b broken) Open(name string) (sdboot.File, error) {
	file, err := b.Files.Open(name)
	if name == b.name {
		file = &brokenFile{file, b.how, b.how == ""}
	}
	return file, err
}

type brokenFile struct {
	sdboot.File
	how    string
	broken bool
}

func (f *brokenFile) Seek(off int64, whence int) (int64, error) {
	if whence == io.SeekStart && f.how == "seek back" || whence == io.SeekEnd && f.how == "seek to the end" {
		return 0, boottest.ErrInjected
	}
	f.broken = f.broken || whence == io.SeekStart
	return f.File.Seek(off, whence)
}

func (f *brokenFile) ReadAt(p []byte, off int64) (int, error) {
	if f.broken || f.how == "headers alone" && off >= 280 {
		return 0, boottest.ErrInjected
	}
	return f.File.ReadAt(p, off)
}

func (f *brokenFile) Read(p []byte) (int, error) {
	if f.broken {
		return 0, boottest.ErrInjected
	}
	return f.File.Read(p)
}

// TestReadBackFails: an entry, or the image it was made from, that cannot be read for the comparison is an error with its cause.
func TestReadBackFails(t *testing.T) {
	for _, dir := range []broken{
		{name: "EFI/Linux/updater-3-B+1.efi"}, {name: "EFI/updater/B.efi", how: "read again"}, {name: "EFI/updater/B.efi"},
		{name: "EFI/updater/B.efi", how: "headers alone"}, {name: "EFI/updater/B.efi", how: "seek back"},
		{name: "EFI/updater/B.efi", how: "seek to the end"},
		{name: "loader/entries/updater-3-B+1.conf"}, {name: "loader/updater/B.conf"},
	} {
		dir.M = boottest.New(boottest.Disk{Files: images()})
		if strings.HasPrefix(dir.name, "loader") {
			dir.M = boottest.New(boottest.Disk{Files: fresh()})
		}
		b, err := open(dir, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || !errors.Is(err, boottest.ErrInjected) || dir.M.Opened != 0 {
			t.Errorf("Activate while %s cannot be read = %v, %d files left open; want ErrState and the cause", dir.name, err, dir.M.Opened)
		}
	}
}

// losing is a folder that lists the file of one name only once.
type losing struct {
	boottest.Files
	name  string
	lists *int
}

func (l losing) List() ([]string, error) {
	names, err := l.Files.List()
	if *l.lists++; *l.lists > 1 {
		names = slices.DeleteFunc(names, func(n string) bool { return n == l.name })
	}
	return names, err
}

// TestVerifies: a change after which the boot loader does not find the entry is an error, whatever the other slot has.
func TestVerifies(t *testing.T) {
	for _, c := range []struct {
		before, lost, booted string // the entries of slot B before and after, and the running slot
		change               func(b *sdboot.Backend) error
	}{
		{"updater-1-B.conf", "updater-3-B+1.conf", "A", func(b *sdboot.Backend) error { return b.Activate(t.Context(), "B", 1) }},
		{"updater-3-B+0-1.conf", "updater-3-B.conf", "B", func(b *sdboot.Backend) error { return b.MarkGood(t.Context(), "B") }},
		{"updater-3-B+0-1.conf", "updater-1-B.conf", "A", func(b *sdboot.Backend) error { return b.RestoreFallback(t.Context(), "B") }},
	} {
		files := fresh()
		files["loader/entries/"+c.before] = files["loader/entries/updater-1-B.conf"]
		if c.before != "updater-1-B.conf" {
			delete(files, "loader/entries/updater-1-B.conf")
		}
		m := boottest.New(boottest.Disk{Files: files})
		b, err := open(losing{boottest.Files{M: m}, "loader/entries/" + c.lost, new(int)}, c.booted)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.change(b); !errors.Is(err, boot.ErrState) || m.Disk().Files["loader/entries/"+c.lost] == "" {
			t.Errorf("with %s lost: %v; want ErrState", c.lost, err)
		}
	}
}

// fat is a folder whose names have no case: a file that replaces another one keeps its name, as on Linux (vfat_rename).
type fat struct{ boottest.Files }

func (f fat) name(name string) string {
	for n := range f.M.Disk().Files {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return name
}

func (f fat) Open(name string) (sdboot.File, error) { return f.Files.Open(f.name(name)) }
func (f fat) Rename(from, to string) error          { return f.Files.Rename(f.name(from), f.name(to)) }
func (f fat) Remove(name string) error              { return f.Files.Remove(f.name(name)) }

// TestOtherCase: mark good keeps the entry of the running slot whose name differs in case, such as one of an earlier prefix.
func TestOtherCase(t *testing.T) {
	for name, change := range map[string]func(f map[string]string){
		"two entries": func(f map[string]string) {
			f["loader/entries/updater-2-A+1.conf"] = f["loader/entries/UPDATER-2-a.Conf"]
		},
		"damaged": func(f map[string]string) { f["loader/entries/UPDATER-2-a.Conf"] = "title x\n" },
	} {
		files := fresh()
		files["loader/entries/UPDATER-2-a.Conf"] = files["loader/entries/updater-2-A.conf"]
		delete(files, "loader/entries/updater-2-A.conf")
		change(files)
		m := boottest.New(boottest.Disk{Files: files})
		b, err := open(fat{boottest.Files{M: m}}, "A")
		if err != nil {
			t.Fatal(err)
		}
		err = b.MarkGood(t.Context(), "A")
		if st, stErr := b.State(t.Context()); err != nil || stErr != nil || st.Next != "A" || !st.Slots[0].Good || len(st.Findings) > 0 {
			t.Errorf("%s: MarkGood = %v, then State = %+v, %v; want one good entry of A", name, err, st, stErr)
		}
		if name == "two entries" && m.Writes() != 1 {
			t.Errorf("MarkGood beside an intact entry made %d changes; want the removal of the other one alone", m.Writes())
		}
	}
}
