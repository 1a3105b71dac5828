package sdboot_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/sdboot"
)

func onMedium(t *testing.T, files map[string]string, booted string) (*boottest.Medium, *sdboot.Backend) {
	t.Helper()
	m := boottest.New(boottest.Disk{Files: files})
	b, err := open(boottest.Files{M: m}, booted)
	if err != nil {
		t.Fatal(err)
	}
	return m, b
}

func finds(st boot.State, severity boot.Severity, words string) bool {
	return slices.ContainsFunc(st.Findings, func(f boot.Finding) bool {
		return f.Severity == severity && strings.Contains(f.Evidence, words) && f.Remedy != ""
	})
}

// demo returns an image of slot B with more in its .osrel section.
func demo(more string) string { return boottest.Image("ID=demo\n"+more, "updater.slot=B") }

// An image that the boot loader would not order by generation, or would ignore, is refused before any change and reported.
func TestImageRefused(t *testing.T) {
	whole := demo("")
	at := strings.Index(whole, ".osrel")
	patch := func(off int, b string) string { return whole[:off] + b + whole[off+len(b):] }
	for name, c := range map[string]struct{ template, refusal, finding string }{
		"version":          {demo("VERSION_ID=1\n"), `version "1"`, "so that the generation decides"},
		"other ID":         {boottest.Image("ID=demo2\n", ""), `"demo2"`, "so that the generation decides"},
		"IMAGE_ID":         {demo("IMAGE_ID=a\n"), `ID "a"`, "so that the generation decides"},
		"other machine":    {patch(68, "\x64\xaa"), "0xaa64", "so that the generation decides"},
		"no ID":            {boottest.Image("NAME=demo\n", ""), "neither IMAGE_ID nor ID", "neither IMAGE_ID nor ID"},
		"no name":          {boottest.Image("X=demo\n", ""), "no PRETTY_NAME", "would not start the template"},
		"empty":            {"", "ends before byte 64", "would not start the template"},
		"cut":              {whole[:200], "ends before byte", "would not start the template"},
		"cut in a section": {whole[:len(whole)-1], "ends before byte", "truncated"},
		"script":           {"#!/bin/sh\n" + strings.Repeat("#", 4<<10), "ends before byte", "would not start the template"},
		"no PE":            {patch(64, "NE"), "no PE header", "would not start the template"},
		"no section":       {patch(70, "\x00\x00"), "0 sections", "would not start the template"},
		"no MZ":            {patch(0, "ZM"), "no PE header", "would not start the template"},
		"most sections":    {patch(70, "\x60\x00"), "ends before byte", "would not start the template"},
		"one more":         {patch(70, "\x61\x00"), "97 sections", "would not start the template"},
		"many sections":    {patch(70, "\xff\xff"), "65535 sections", "would not start the template"},
		"no .osrel":        {patch(at, ".other"), "no .osrel section", "would not start the template"},
		"two .osrel":       {patch(at+40, ".osrel\x00\x00"), "more than one .osrel section", "would not start the template"},
		"longer name":      {patch(at, ".osrelx"), "more than one .osrel section", "would not start the template"},
		"empty .osrel":     {patch(at+8, "\x00\x00\x00\x00"), "0 bytes", "would not start the template"},
		"beyond its data":  {patch(at+8, "\x40\x00\x00\x00"), "64 bytes and 8 in the file", "would not start the template"},
		"huge .osrel":      {patch(at+8, "\x00\x00\x00\x7f\x00\x20\x00\x00\x00\x00\x00\x7f"), "expected 1 to 65536", "would not start the template"},
	} {
		t.Run(name, func(t *testing.T) {
			files := images()
			files["EFI/updater/B.efi"] = c.template
			m, b := onMedium(t, files, "A")
			for what, do := range map[string]func() error{
				"Invalidate": func() error { return b.Invalidate(t.Context(), "B") },
				"Activate":   func() error { return b.Activate(t.Context(), "B", 1) },
			} {
				if err := do(); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), c.refusal) || m.Writes() > 0 {
					t.Errorf("%s = %v, %d writes; want ErrState with %q and none", what, err, m.Writes(), c.refusal)
				}
			}
			st, err := b.State(t.Context())
			if err != nil || st.Next != "A" || !finds(st, boot.Failure, c.finding) {
				t.Errorf("State = %+v, %v; want %q", st, err, c.finding)
			}
		})
	}
}

// TestRelease: which fields of .osrel the boot loader orders by.
func TestRelease(t *testing.T) {
	full := "ID=demo\n" + strings.Repeat("#", 64<<10-8)
	for text, want := range map[string]string{
		"#ID=x\nID=demo\n#VERSION_ID=3\n": "", "ID==demo\n": "", "ID=demo\n\x00\nVERSION_ID=9\n": "", full: "", full + "#": "expected 1 to 65536",
		"ID=demo\nVERSION=2\nVERSION_ID=3\n": `version "2"`, "ID=demo\nVERSION_ID=3\nBUILD_ID=4\n": `version "3"`, "ID=demo\nBUILD_ID=4\n": `version "4"`,
		"ID=demo\nVERSION=2\nIMAGE_VERSION=1\n": `version "1"`, "PRETTY_NAME=x\n": "neither IMAGE_ID nor ID", "ID=\"\n": `ID "\""`,
	} {
		files := images()
		files["EFI/updater/B.efi"] = boottest.Image(text, "updater.slot=B")
		_, b := onMedium(t, files, "A")
		if err := b.Invalidate(t.Context(), "B"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Invalidate with .osrel %.60q = %v; want %q", text, err, want)
		}
	}
}

// The same version in every slot is as good as none. Comments, quotes and other variables do not matter.
func TestSameVersion(t *testing.T) {
	files := images()
	for name, text := range files {
		if strings.HasSuffix(name, ".efi") && strings.Contains(text, "ID=demo") {
			_, slot, _ := strings.Cut(text, "updater.slot=")
			files[name] = boottest.Image("# os\nPRETTY_NAME='slot "+slot+"'\r\n ID=\"demo\"\nVERSION_ID=\n\nVERSION_ID=12\nX"+slot+"=1", "updater.slot="+slot)
		}
	}
	files["EFI/updater/B.efi"] = boottest.Image("VERSION_ID=7\nVERSION_ID=\"12\"\nID=demo", "updater.slot=B")
	m, b := onMedium(t, files, "A")
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	d := m.Disk()
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" || boottest.SystemdBootImages(&d) != "B" {
		t.Errorf("State = %+v, %v; want slot B", st, err)
	}
}

// If images have versions, State orders by them, as the boot loader does, whatever the generation (UAPI.10, "Examples").
func TestVersionOrder(t *testing.T) {
	next := func(older, newer string) boot.State {
		t.Helper()
		files := boottest.ImageFiles()
		files["EFI/Linux/updater-2-A.efi"] = boottest.Image("ID=demo\nIMAGE_VERSION="+newer, "")
		files["EFI/Linux/updater-3-B.efi"] = boottest.Image("ID=demo\nIMAGE_VERSION="+older, "")
		delete(files, "EFI/Linux/updater-1-B.efi")
		_, b := onMedium(t, files, "A")
		st, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for _, c := range []struct{ older, newer string }{
		{"", "1"}, {"11", "12"}, {"9", "10"}, {"122.1", "123"}, {"123~rc1-1", "123"}, {"123", "123-a"}, {"123-a", "123-a.1"},
		{"123-a.1", "123-1"}, {"123-1", "123-1.1"}, {"123-1.1", "123^post1"}, {"123^post1", "123.a-1"}, {"123.a-1", "123.1-1"},
		{"123.1-1", "123a-1"}, {"123a-1", "124-1"}, {"a", "1"}, {"~", ""}, {"1_2", "1_3"}, {"2025.9.30", "2025.10.1"},
		{"1a", "1z"}, {"1", "1A"}, {"1A", "1Z"},
	} {
		if st := next(c.older, c.newer); st.Next != "A" || !finds(st, boot.Failure, "so that the generation decides") {
			t.Errorf("with version %q in A and %q in B State = %+v; want A, and a failure", c.newer, c.older, st)
		}
	}
	for _, c := range []struct{ older, newer string }{{"007", "7"}, {"1..", "1.."}, {"1_a", "1a"}, {"1__2", "1_2"}, {"0", "00"}} {
		if st := next(c.older, c.newer); st.Next != "B" {
			t.Errorf("with version %q in A and %q in B State = %+v; want the later generation, B", c.newer, c.older, st)
		}
	}
}

func TestImageFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(f map[string]string)
		severity boot.Severity
		want     string
		next     string
	}{
		"image of others first": {func(f map[string]string) { f["EFI/Linux/x.EFI"] = boottest.Image("ID=debian\n", "") },
			boot.Warning, "EFI/Linux/x.EFI has sort-key debian and boots before every slot", "A"},
		"image of others among": {func(f map[string]string) { f["EFI/Linux/x.efi"] = demo("VERSION_ID=12\n") },
			boot.Warning, "EFI/Linux/x.efi has the sort-key of the slots, demo", "A"},
		"entry of others first": {func(f map[string]string) { f["loader/entries/x.conf"] = "sort-key a\nlinux /x\n" },
			boot.Warning, "loader/entries/x.conf has sort-key a", "A"},
		"no template": {func(f map[string]string) { delete(f, "EFI/updater/B.efi") },
			boot.Warning, "slot B has no template EFI/updater/B.efi", "A"},
		"two entries": {func(f map[string]string) { f["EFI/Linux/updater-9-B+2.efi"] = demo("") },
			boot.Warning, "slot B has 2 entries", "B"},
		"entry that is none": {func(f map[string]string) { f["EFI/Linux/updater-2-A.efi"] = "x" },
			boot.Failure, "the boot loader ignores the entry: boot state: EFI/Linux/updater-2-A.efi", "B"},
		"entry truncated": {func(f map[string]string) { f["EFI/Linux/updater-2-A.efi"] = demo("")[:300] },
			boot.Failure, "EFI/Linux/updater-2-A.efi: truncated", "A"},
		"other case, later generation": {func(f map[string]string) {
			f["EFI/Linux/UPDATER-3-b.EFI"] = demo("")
			delete(f, "EFI/Linux/updater-1-B.efi")
			f["EFI/Linux/x.efi"] = boottest.Image("ID=debian\n", "")
		}, boot.Warning, "EFI/Linux/x.efi has sort-key debian", "B"},
		"no image at all": {func(f map[string]string) {
			for name := range f {
				if strings.HasSuffix(name, ".efi") {
					f[name] = "x"
				}
			}
		}, boot.Failure, "would not start the template", ""},
		"keyless entry last": {func(f map[string]string) { f["EFI/Linux/updater-2-A.efi"] = boottest.Image("NAME=x\n", "") },
			boot.Failure, "neither IMAGE_ID nor ID", "B"},
	} {
		t.Run(name, func(t *testing.T) {
			files := images()
			c.change(files)
			_, b := onMedium(t, files, "A")
			if st, err := b.State(t.Context()); err != nil || st.Next != c.next || !finds(st, c.severity, c.want) {
				t.Errorf("State = %+v, %v; want slot %s and %q", st, err, c.next, c.want)
			}
		})
	}
	// A Type #1 entry of ours is ordered against the images of others as well.
	files := fresh()
	files["EFI/Linux/x.efi"], files["EFI/Linux/y.efi"] = demo(""), boottest.Image("ID=zz\n", "")
	files["EFI/Linux/z.efi"] = "no image"
	_, b := onMedium(t, files, "A")
	st, err := b.State(t.Context())
	found := func(words string) bool { return finds(st, boot.Warning, words) }
	if err != nil || !found("EFI/Linux/x.efi has sort-key demo") || found("y.efi") || found("z.efi") {
		t.Errorf("State = %+v, %v; want x.efi alone", st, err)
	}
}

// With entries of both kinds nothing is changed.
func TestMixedKinds(t *testing.T) {
	for name, change := range map[string]func(f map[string]string){
		"template": func(f map[string]string) { f["loader/updater/B.conf"] = template },
		"entry":    func(f map[string]string) { f["loader/entries/updater-1-B.conf"] = template },
	} {
		files := images()
		change(files)
		m, b := onMedium(t, files, "A")
		_, err := b.State(t.Context())
		for what, err := range map[string]error{
			"State": err, "Invalidate": b.Invalidate(t.Context(), "B"), "Activate": b.Activate(t.Context(), "B", 1),
			"MarkGood": b.MarkGood(t.Context(), "A"), "Repair": b.Repair(t.Context()),
		} {
			if !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "for every slot") || m.Writes() > 0 {
				t.Errorf("%s: %s = %v, %d writes; want ErrState and none", name, what, err, m.Writes())
			}
		}
	}
	if _, err := sdboot.New(sdboot.Options{Slots: []string{"a", "A"}}, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New with slots a and A = %v; want ErrState", err)
	}
}

// A slot is not touched if there is no room for the entry on trial and the good entry that replaces it.
func TestRoom(t *testing.T) {
	size := int64(len(images()["EFI/updater/B.efi"]))
	one := size + 128<<10
	halfMade := func(f map[string]string) { f["EFI/Linux/updater.new"] = f["EFI/updater/B.efi"] }
	for _, c := range []struct {
		name    string
		room    int64
		change  func(f map[string]string)
		refused bool
	}{
		{"none", 0, nil, true},
		{"the old one and one", one, nil, true},
		{"two", 2 * one, nil, false},
		{"one and the old one", 2*one - size, nil, false},
		{"half made", 2*one - 2*size, halfMade, false},
		{"half made, too little", 2*one - 2*size - 1, halfMade, true},
	} {
		files := images()
		if c.change != nil {
			c.change(files)
		}
		m, b := onMedium(t, files, "A")
		m.Room = c.room
		err := b.Invalidate(t.Context(), "B")
		refused := errors.Is(err, boot.ErrState) && strings.Contains(err.Error(), "bytes free") && m.Writes() == 0
		if refused != c.refused || !refused && err != nil {
			t.Errorf("%s: Invalidate = %v, %d writes; want a refusal: %v", c.name, err, m.Writes(), c.refused)
		}
		if c.refused {
			if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || strings.Contains(err.Error(), "\n") || m.Writes() > 0 {
				t.Errorf("%s: Activate = %v, %d writes; want ErrState and none", c.name, err, m.Writes())
			}
		}
	}
	m, b := onMedium(t, images(), "A")
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	m.Room = one - 1
	b, err := open(boottest.Files{M: m}, "B")
	if err != nil {
		t.Fatal(err)
	}
	n := m.Writes()
	if err := b.MarkGood(t.Context(), "B"); !errors.Is(err, boot.ErrState) || m.Writes() > n {
		t.Errorf("MarkGood without room = %v, %d writes; want ErrState and none", err, m.Writes()-n)
	}
	m.Room = 0
	if err := b.MarkBad(t.Context(), "B"); err != nil {
		t.Errorf("MarkBad without room = %v", err)
	}
	for room, refused := range map[int64]bool{one: false, one - 1: true, one - size: true} {
		files := images()
		delete(files, "EFI/Linux/updater-1-B.efi")
		m, b := onMedium(t, files, "A")
		m.Room = room
		if err := b.RestoreFallback(t.Context(), "B"); refused != errors.Is(err, boot.ErrState) || !refused && err != nil || refused && m.Writes() > 0 {
			t.Errorf("RestoreFallback with %d bytes = %v, %d writes; want a refusal: %v", room, err, m.Writes(), refused)
		}
	}
	spent := images()
	spent["EFI/Linux/updater-1-B+0-1.efi"] = spent["EFI/Linux/updater-1-B.efi"]
	delete(spent, "EFI/Linux/updater-1-B.efi")
	damaged := images()
	damaged["EFI/Linux/updater-1-B.efi"] = strings.Repeat("x", 1<<10)
	for name, files := range map[string]map[string]string{"spent": spent, "damaged": damaged} {
		m, b := onMedium(t, files, "A")
		need := one - int64(len(files["EFI/Linux/updater-1-B.efi"])+len(files["EFI/Linux/updater-1-B+0-1.efi"]))
		m.Room = need - 1
		if err := b.RestoreFallback(t.Context(), "B"); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
			t.Errorf("RestoreFallback without room beside an entry that is %s = %v, %d writes; want ErrState and none", name, err, m.Writes())
		}
		m.Room = need
		if err := b.RestoreFallback(t.Context(), "B"); err != nil {
			t.Errorf("RestoreFallback beside an entry that is %s = %v", name, err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != "A" || !st.Slots[1].Good {
			t.Errorf("RestoreFallback beside an entry that is %s: State = %+v, %v", name, st, err)
		}
	}
	files, large := images(), demo("")+strings.Repeat("x", 300<<10)
	for _, name := range []string{"EFI/updater/B.efi", "EFI/Linux/updater-1-B.efi", "EFI/Linux/updater-1-B+1.efi"} {
		files[name] = large // both entries go only after the new one is there
	}
	m, b = onMedium(t, files, "A")
	m.Room = int64(len(large)) + 128<<10 - 1
	if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
		t.Errorf("Activate without room for a copy = %v, %d writes; want ErrState and none", err, m.Writes())
	}
}

// While an install writes the next template, a slot is invalidated whatever its old one is; the size of the new one decides whether there
// is room.
func TestNextTemplate(t *testing.T) {
	size := int64(len(images()["EFI/updater/B.efi"]))
	large := strings.Repeat("x", int(4*size))
	need := 2 * (4*size + 128<<10)
	for _, c := range []struct {
		name, old string
		room      int64
		refused   bool
	}{
		{"no old one, room", "", need - size, false},
		{"no old one, too little", "", need - size - 1, true},
		{"damaged, room", "MZ", need - size - 2, false},
		{"whole, too little", images()["EFI/updater/B.efi"], need - 2*size - 1, true},
	} {
		files := images()
		files["EFI/updater/B.efi.new"], files["EFI/updater/B.efi"] = large, c.old
		if c.old == "" {
			delete(files, "EFI/updater/B.efi")
		}
		m := boottest.New(boottest.Disk{Files: files})
		m.Room = c.room
		b, err := sdboot.New(sdboot.Options{Dir: boottest.Files{M: m}, Slots: []string{"A", "B"}, Beside: ".new"}, "A")
		if err != nil {
			t.Fatal(err)
		}
		err = b.Invalidate(t.Context(), "B")
		if refused := errors.Is(err, boot.ErrState) && m.Writes() == 0; refused != c.refused || !refused && err != nil {
			t.Errorf("%s: Invalidate = %v, %d writes; want a refusal: %v", c.name, err, m.Writes(), c.refused)
		}
	}
}

// TestNextTemplateFails: a failure to look at the next template, or for room, is an error.
func TestNextTemplateFails(t *testing.T) {
	for n := 1; ; n++ {
		files := images()
		files["EFI/updater/B.efi.new"], files["EFI/Linux/updater.new"] = files["EFI/updater/B.efi"], files["EFI/updater/B.efi"]
		m := boottest.New(boottest.Disk{Files: files})
		b, err := sdboot.New(sdboot.Options{Dir: boottest.Files{M: m}, Slots: []string{"A", "B"}, Beside: ".new"}, "A")
		if err != nil {
			t.Fatal(err)
		}
		m.FailAt = n
		err = b.Invalidate(t.Context(), "B")
		if (err == nil) != (m.Operations() < n) || err != nil && !errors.Is(err, boottest.ErrInjected) || m.Opened != 0 {
			t.Errorf("operation %d failed: Invalidate = %v, %d files left open", n, err, m.Opened)
		}
		if m.Operations() < n {
			return
		}
	}
}

// Mark good copies the image that booted, even if the template has changed since.
func TestMarkGoodKeepsWhatBooted(t *testing.T) {
	m, b := onMedium(t, images(), "A")
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	d := m.Disk()
	if got := boottest.SystemdBootImages(&d); got != "B" {
		t.Fatalf("the loader chose %q", got)
	}
	want := d.Files["EFI/updater/B.efi"]
	d.Files["EFI/updater/B.efi"] = "damaged"
	m, b = onMedium(t, d.Files, "B")
	if err := b.MarkGood(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	if got := m.Disk().Files["EFI/Linux/updater-3-B.efi"]; got != want {
		t.Errorf("the good entry is %q; want the image that booted", got)
	}
}

// Repair keeps the newer of two entries, or the good one of the same generation, and rewrites the running slot's entry if
// the boot loader ignores it.
func TestRepairImages(t *testing.T) {
	files := images()
	files["EFI/Linux/updater-2-a+2-1.efi"] = files["EFI/Linux/updater-2-A.efi"] // it is listed last
	files["EFI/Linux/updater-9-B.efi"] = demo("")[:200]
	m, b := onMedium(t, files, "A")
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries := func() (list []string) {
		for name := range m.Disk().Files {
			if strings.HasPrefix(name, "EFI/Linux/u") {
				list = append(list, name)
			}
		}
		slices.Sort(list)
		return list
	}
	if got, want := entries(), []string{"EFI/Linux/updater-1-B.efi", "EFI/Linux/updater-2-A.efi"}; !slices.Equal(got, want) {
		t.Errorf("the entries are %q; want %q", got, want)
	}
	files = m.Disk().Files
	files["EFI/Linux/updater-2-A.efi"] = "half"
	m, b = onMedium(t, files, "A")
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || !st.Slots[0].Good {
		t.Errorf("after Repair State = %+v, %v; want A good", st, err)
	}
}

// An image built with objcopy from Debian's stub is accepted, on a real folder.
func TestRealImage(t *testing.T) {
	for _, name := range []string{"objcopy", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"} {
		if _, err := exec.LookPath(name); err != nil && !strings.HasPrefix(name, "/") {
			t.Skipf("%s is not installed", name)
		}
		if _, err := os.Stat(name); err != nil && strings.HasPrefix(name, "/") {
			t.Skipf("%s is not installed", name)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"EFI/Linux", "EFI/updater"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"A", "B"} {
		out := filepath.Join(dir, "EFI/updater", s+".efi")
		if text, err := exec.Command("../../scripts/uki.sh", "amd64", kernel, kernel, "updater.slot="+s, out).CombinedOutput(); err != nil {
			t.Fatalf("uki.sh: %v: %s", err, text)
		}
	}
	f, b := openFolder(t, dir)
	for _, s := range []string{"B", "A"} {
		if err := b.Activate(t.Context(), s, 2); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || finds(st, boot.Failure, "") || finds(st, boot.Warning, "") {
		t.Errorf("State = %+v, %v; want slot A and nothing wrong", st, err)
	}
	free, err := f.Free()
	if err != nil || free <= 0 {
		t.Errorf("Free = %d, %v", free, err)
	}
}

func FuzzImage(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { takesImage(t, data) })
}

func TestImageSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzImage", 15, 4, func(v []string) bool { return takesImage(t, []byte(v[0])) })
}

// takesImage activates a slot whose template is an arbitrary file, beside an equal entry. It reports whether the template was
// accepted.
func takesImage(t *testing.T, data []byte) bool {
	files := images()
	files["EFI/updater/B.efi"], files["EFI/Linux/updater-1-B.efi"], files["EFI/Linux/x.efi"] = string(data), string(data), string(data)
	m, b := onMedium(t, files, "A")
	if _, err := b.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		if !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
			t.Fatalf("Activate = %v, %d writes; want ErrState and none", err, m.Writes())
		}
		return false
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
		t.Fatalf("activated: State = %+v, %v", st, err)
	}
	return true
}
