package powercut

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Mistakes in the product's own code. The test builds this package once more, with a copy of the program in which every mistake
// below is behind a switch, and runs one test for each mistake, which has to fail.

// seeded is one mistake: new replaces old, which occurs once in the file. SEEDED in new is true when the mistake is on.
type seeded struct {
	name     string
	file     string
	old, new string
	test     string // test that has to find it: one of this package, or the folder and name of another one
}

const (
	model  = "TestModel/^"
	lives  = "TestLife/^grub$"
	faulty = "TestEveryFault/^grub$"
)

var seededBugs = []seeded{
	{"the target is not marked bad", "update/install.go", "if err := job.Boot.Invalidate(ctx, run.Slot); err != nil {",
		"if SEEDED {\n} else if err := job.Boot.Invalidate(ctx, run.Slot); err != nil {", model + "grub$"},
	{"no flush before the read-back and the switch", "update/part.go", "return p.writing(p.target.Flush()) }",
		"if SEEDED {\nreturn nil\n}\nreturn p.writing(p.target.Flush()) }", lives},
	{"the switch comes before the read-back", "update/install.go", "if err := run.each(func(p *part) error { return p.readBack(ctx) }); err != nil {",
		"if SEEDED {\nif err := run.activate(ctx); err != nil {\nreturn nil, err\n}\n}\nif err := run.each(func(p *part) error { return p.readBack(ctx) }); err != nil {", faulty},
	{"nothing is read back", "update/install.go", "return p.readBack(ctx) }); err != nil {", "if SEEDED {\nreturn nil\n}\nreturn p.readBack(ctx) }); err != nil {", faulty},
	{"a range is read back before its barrier has completed", "update/behind.go", "if barriers > b.barriers {",
		"if SEEDED {\nb.allow(written)\n} else if barriers > b.barriers {", faulty},
	{"repaired ranges are not read again", "update/readback.go", "still, err := b.recheck(ctx, medium, bad)",
		"if SEEDED {\nbad = nil\n}\nstill, err := b.recheck(ctx, medium, bad)", faulty},
	{"a range that a delta made wrong is not read after it was written", "update/behind.go", "still, err := p.readBackWith(nil).recheck(",
		"if SEEDED {\np.late = nil\n}\nstill, err := p.readBackWith(nil).recheck(", faulty},
	{"the barrier does not flush", "blockdev/device.go", "if err := d.sentinel.Datasync(); err != nil {",
		"if SEEDED {\nreturn nil\n}\nif err := d.sentinel.Datasync(); err != nil {", lives},
	{"the barrier does not see its error", "blockdev/device.go", "if err := d.sentinel.Datasync(); err != nil {", "if err := d.sentinel.Datasync(); err != nil && !SEEDED {", faulty},
	{"an error of a direct write is dropped", "blockdev/direct.go", "if err != nil {\n\t\t\t_ = e.d.poison(", "if err != nil && !SEEDED {\n\t\t\t_ = e.d.poison(", faulty},
	{"an error of sync_file_range is dropped, and the barrier is on the same descriptor", "blockdev/device.go",
		"if err := d.f.SyncRange(d.base+off, length, flags); err != nil {", "if SEEDED {\nd.sentinel = d.f\n}\nif err := d.f.SyncRange(d.base+off, length, flags); err != nil && !SEEDED {", faulty},
	{"grub: a slot whose try is spent counts as bootable", "boot/grub/grub.go", `case r.env.get(slot+"_TRY") == "0":`,
		`case SEEDED || r.env.get(slot+"_TRY") == "0":`, model + "grub$"},
	{"grub: the tries of a good slot are counted", "boot/grub/grub.go", "if e.Good {\n\t\t\tleft = \"g\"", "if e.Good && !SEEDED {\n\t\t\tleft = \"g\"", model + "grub,_tries$"},
	{"uboot: the older copy still lets the target boot", "boot/uboot/storage.go", "case err != nil || !s.redundant() || l.equal:",
		"case err != nil || !s.redundant() || l.equal || SEEDED:", model + "uboot$"},
	{"android: priorities are not lowered", "boot/android/control.go", "v |= uint16(prio[s]) |", "if SEEDED {\nprio[s] = 15\n}\nv |= uint16(prio[s]) |", model + "android$"},
	{"uboot: the flag does not count up", "boot/uboot/storage.go", "e.flag = l.env.flag + 1 //", "e.flag = l.env.flag + map[bool]byte{false: 1}[SEEDED] //", model + "uboot$"},
	{"barebox: only the first bucket is written", "boot/barebox/state.go", "if r.valid[i] != valid {", "if r.valid[i] != valid || SEEDED && i > 0 {", model + "barebox$"},
	{"gpt: the header is not written", "boot/gpt/gpt.go", "if err := r.write(p, before[i].Data); err != nil {", "if SEEDED && i == 1 {\nbreak\n}\nif err := r.write(p, before[i].Data); err != nil {", model + "gpt$"},
	{"efi: mark good moves no option", "boot/efi/efi.go", "return b.setOrder(m, append([]uint16{n}, rest...))", "if SEEDED {\nreturn nil\n}\nreturn b.setOrder(m, append([]uint16{n}, rest...))", model + "efi$"},
	{"efi: a pending try of the target is kept", "boot/efi/efi.go", "if m.trying == slot {\n\t\tif err := b.Vars", "if m.trying == slot && !SEEDED {\n\t\tif err := b.Vars", model + "efi$"},
	{"sdboot: the counted entry goes before the good one is there", "boot/sdboot/sdboot.go", "if err := cmp.Or(f.ordered(t), b.room(f, t, \"\", 1)); err != nil {",
		"if SEEDED {\nif err := b.remove(own, func(e entry) bool { return e.name != name }); err != nil {\nreturn err\n}\n}\nif err := cmp.Or(f.ordered(t), b.room(f, t, \"\", 1)); err != nil {", model + "sdboot$"},
	{"sdboot: an entry without a counter goes on trial", "boot/sdboot/sdboot.go", "f.fileName(b.Prefix, generation, slot, tries)); err != nil {",
		"f.fileName(b.Prefix, generation, slot, map[bool]int{false: tries}[SEEDED])); err != nil {", model + "sdboot,_images$"},
	{"tryboot: the target becomes the default", "boot/tryboot/tryboot.go", "if err := b.write(c, all, slot); err != nil || c.pending {",
		"if SEEDED {\nall, slot = slot, all\n}\nif err := b.write(c, all, slot); err != nil || c.pending {", model + "tryboot$"},
}

// plant writes copies of the files with every mistake, and the overlay of them for the go command.
func plant(t *testing.T, dir string) (overlay string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, b := range slices.Concat(seededBugs, namedBugs) {
		text, ok := texts[b.file]
		if !ok {
			data, err := os.ReadFile(filepath.Join(root, b.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		if n := strings.Count(text, b.old); n != 1 {
			t.Fatalf("%s: %s has %d times %q; want it once: plant the mistake again", b.name, b.file, n, b.old)
		}
		texts[b.file] = strings.Replace(text, b.old, strings.ReplaceAll(b.new, "SEEDED", "seeded.On("+jsonOf(b.name)+")"), 1)
	}
	replace := map[string]string{}
	add := func(file, text string) {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = path
	}
	for file, text := range texts {
		before, after, _ := strings.Cut(text, "\nimport (")
		add(file, before+"\nimport (\n\t\"updater/internal/seeded\""+after)
	}
	add("internal/seeded/seeded.go", "package seeded\n\nimport \"os\"\n\nvar name = os.Getenv(\"SEEDED\")\n\nfunc On(bug string) bool { return bug == name }\n")
	overlay = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, []byte(`{"Replace":`+jsonOf(replace)+`}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

func jsonOf(v any) string {
	data, _ := json.Marshal(v) // of strings and maps of them
	return string(data)
}

// TestSeededProduct: every mistake in the product's code is found.
func TestSeededProduct(t *testing.T) {
	if testing.Short() || os.Getenv("SEEDED") != "" {
		t.Skip("runs the other tests")
	}
	start := time.Now()
	dir, programs := t.TempDir(), map[string]string{}
	overlay := plant(t, dir)
	all := slices.Concat(seededBugs, namedBugs)
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) {
			folder, test, other := strings.Cut(b.test, " ")
			if !other {
				folder, test = "test/powercut", b.test
			}
			folder = "../../" + folder
			bin := programs[folder]
			if bin == "" {
				bin = filepath.Join(dir, fmt.Sprint(len(programs), ".test"))
				build := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay", overlay, "-c", "-o", bin, folder)
				build.Env = append(os.Environ(), "CGO_ENABLED=0")
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("building with the mistakes: %v\n%s", err, out)
				}
				programs[folder] = bin
			}
			cmd := exec.CommandContext(t.Context(), bin, "-test.run", test, "-test.failfast")
			cmd.Dir, cmd.Env = folder, append(os.Environ(), "SEEDED="+b.name, "UPDATER_PROOF_SEEDS=20")
			out, err := cmd.CombinedOutput()
			text := string(out)
			at := strings.Index(text, "_test.go:")
			if err == nil || at < 0 {
				t.Fatalf("not found by %s: %v\n%.2000s", b.test, err, text)
			}
			t.Logf("found: %.300s", text[at:])
		})
	}
	count(t, "mistakes in the product's code found", int64(len(all)), start)
}
