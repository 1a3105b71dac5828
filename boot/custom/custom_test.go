package custom_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/boot"
	"updater/boot/custom"
)

// loader is a boot loader whose state is three files, changed by a shell script.
const loader = `#!/bin/sh
set -e
cd "$(dirname "$0")"
[ $1 = state ] || echo "$@" >>log
case $1 in
state) for s in A B; do
		n=; [ "$(cat next)" = $s ] && n=next
		echo $s $(cat $s) $n
	done ;;
invalidate) echo bad >$2; [ "$(cat next)" != $2 ] || { [ $2 = A ] && echo B >next || echo A >next; } ;;
activate) echo trying $3 >$2; echo $2 >next ;;
good) echo good >$2 ;;
lie) ;;
fail) echo "no such thing"; exit 3 ;;
slow) sleep 30 ;;
junk) echo A perhaps ;;
esac
`

func script(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"loader": loader, "A": "good\n", "B": "good\n", "next": "A\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "loader")
}

func commands(path string) custom.Commands {
	return custom.Commands{
		State: []string{path, "state"}, Invalidate: []string{path, "invalidate", "{slot}"},
		Activate: []string{path, "activate", "{slot}", "{tries}"}, Good: []string{path, "good", "{slot}"},
	}
}

func open(t *testing.T, c custom.Commands, booted string) *custom.Backend {
	t.Helper()
	b, err := custom.New(c, []string{"A", "B"}, booted)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLife(t *testing.T) {
	path := script(t)
	c := commands(path)
	for _, step := range []struct {
		name   string
		booted string
		do     func(b *custom.Backend) error
		next   string
		b      boot.SlotState
	}{
		{"invalidate", "A", func(b *custom.Backend) error { return b.Invalidate(t.Context(), "B") }, "A", boot.SlotState{Name: "B"}},
		{"activate", "A", func(b *custom.Backend) error { return b.Activate(t.Context(), "B", 4) }, "B",
			boot.SlotState{Name: "B", Bootable: true, TriesLeft: 4, Priority: 1}},
		{"mark good", "B", func(b *custom.Backend) error { return b.MarkGood(t.Context(), "B") }, "B",
			boot.SlotState{Name: "B", Bootable: true, Good: true, TriesLeft: -1, Priority: 1}},
		{"mark bad", "A", func(b *custom.Backend) error { return b.MarkBad(t.Context(), "B") }, "A", boot.SlotState{Name: "B"}},
	} {
		b := open(t, c, step.booted)
		if err := step.do(b); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		st, err := b.State(t.Context())
		if err != nil || st.Next != step.next || st.Slots[1] != step.b {
			t.Errorf("after %s State = %+v, %v; want %s next and %+v", step.name, st, err, step.next, step.b)
		}
	}
}

func TestRefusals(t *testing.T) {
	path := script(t)
	c := commands(path)
	for name, err := range map[string]error{
		"running":    open(t, c, "A").Invalidate(t.Context(), "A"),
		"other good": open(t, c, "A").MarkGood(t.Context(), "B"),
		"unknown":    open(t, c, "A").Activate(t.Context(), "C", 1),
		"tries":      open(t, c, "A").Activate(t.Context(), "B", 10),
	} {
		if !errors.Is(err, boot.ErrRefused) {
			t.Errorf("%s = %v; want ErrRefused", name, err)
		}
	}
	b := open(t, c, "A")
	if err := b.Invalidate(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	if err := b.MarkBad(t.Context(), "A"); !errors.Is(err, boot.ErrRefused) {
		t.Errorf("mark bad of the last slot = %v; want ErrRefused", err)
	}
	if _, err := custom.New(custom.Commands{State: []string{"relative"}}, []string{"A"}, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New with a relative path = %v; want ErrState", err)
	}
}

// A program that fails, has no effect, prints invalid output or does not end is an error.
func TestPrograms(t *testing.T) {
	path := script(t)
	for verb, want := range map[string]string{"lie": "slot B is", "fail": "no such thing", "slow": "deadline", "gone": "no such file"} {
		c := commands(path)
		c.Activate = []string{path, verb}
		if verb == "gone" {
			c.Activate = []string{path + ".gone"}
		}
		ctx := t.Context()
		if verb == "slow" {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, time.Second)
			defer stop()
		}
		if err := open(t, c, "A").Activate(ctx, "B", 1); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Activate = %v; want ErrState with %q", verb, err, want)
		}
	}
	c := commands(path)
	c.State = []string{path, "junk"}
	if _, err := open(t, c, "A").State(t.Context()); !errors.Is(err, boot.ErrState) {
		t.Errorf("State of junk = %v; want ErrState", err)
	}
}

// MarkGood of a good slot starts no program that changes anything.
func TestMarkGoodIsIdempotent(t *testing.T) {
	path := script(t)
	c := commands(path)
	c.Good = []string{path, "fail"}
	if err := open(t, c, "A").MarkGood(t.Context(), "A"); err != nil {
		t.Error(err)
	}
	if slices.Contains(c.Good, "{slot}") {
		t.Error("the command was changed")
	}
}

// TestState: the boot loader does what the state program prints.
func TestState(t *testing.T) {
	path := script(t)
	for text, want := range map[string]string{
		"A good next\nB trying 0\n":          "{B false false 0 1}",
		"A good next\nB trying 3\n":          "{B true false 3 1}",
		"A good next\n\nother good\nB bad\n": "{B false false 0 0}",
		"A good next\nB good next\n":         "slots A and B both boot next",
		"A good\nA good\n":                   "slot A is listed twice",
		"B trying 70000\n":                   "is not a number of boots",
		"B trying\n":                         "expected SLOT good",
	} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\nprintf '"+text+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		b := open(t, commands(path), "A")
		st, err := b.State(t.Context())
		got := fmt.Sprint(err)
		if err == nil {
			s := st.Slots[1]
			got = fmt.Sprint(struct {
				Name           string
				Bootable, Good bool
				TriesLeft      int
				Priority       int
			}{s.Name, s.Bootable, s.Good, s.TriesLeft, s.Priority})
		}
		if !strings.Contains(got, want) || (b.Repair(t.Context()) == nil) != (err == nil) {
			t.Errorf("State after %q = %s; want %s", text, got, want)
		}
	}
	b := open(t, commands(path), "A")
	if slot, err := b.Booted(t.Context()); slot != "A" || err != nil || b.Caps().MaxTries != 9 || b.Caps().SwitchAtomic {
		t.Errorf("Booted = %s, %v; Caps = %+v", slot, err, b.Caps())
	}
}

// TestCommands: each operation runs its own program with the slot and the tries.
func TestCommands(t *testing.T) {
	path := script(t)
	c := commands(path)
	c.Bad = []string{path, "invalidate", "{slot}", "for {slot}"}
	for _, err := range []error{
		open(t, c, "A").Invalidate(t.Context(), "B"), open(t, c, "A").Activate(t.Context(), "B", 4),
		open(t, c, "B").MarkGood(t.Context(), "B"), open(t, c, "B").MarkBad(t.Context(), "A"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(c.Invalidate, "{slot}") || !slices.Contains(c.Activate, "{tries}") {
		t.Errorf("the commands were changed: %q", c)
	}
	got, err := os.ReadFile(filepath.Join(filepath.Dir(path), "log"))
	if want := "invalidate B\nactivate B 4\ngood B\ninvalidate A for A\n"; err != nil || string(got) != want {
		t.Errorf("the programs were called %q, %v; want %q", got, err, want)
	}
	st, err := open(t, c, "B").State(t.Context())
	if err != nil || st.Booted != "B" || !slices.Equal(st.Boots, []string{"B"}) || st.Findings[0].Severity != boot.Info {
		t.Errorf("State = %+v, %v", st, err)
	}
	for name, change := range map[string]func(c *custom.Commands){
		"state": func(c *custom.Commands) { c.State = nil }, "invalidate": func(c *custom.Commands) { c.Invalidate = nil },
		"activate": func(c *custom.Commands) { c.Activate = nil }, "good": func(c *custom.Commands) { c.Good = []string{"good"} },
	} {
		bad := c
		change(&bad)
		if _, err := custom.New(bad, []string{"A"}, ""); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "command "+name) {
			t.Errorf("New without the command %s = %v; want ErrState", name, err)
		}
	}
	for _, slots := range [][]string{nil, {"A", "B"}} {
		if _, err := custom.New(c, slots, map[bool]string{true: "C"}[slots != nil]); !errors.Is(err, boot.ErrState) {
			t.Errorf("New with the slots %q = %v; want ErrState", slots, err)
		}
	}
}

// TestEffects: an operation without its whole effect is an error, and with nothing to lose a slot may be invalidated.
func TestEffects(t *testing.T) {
	invalidate := func(b *custom.Backend) error { return b.Invalidate(t.Context(), "B") }
	activate := func(b *custom.Backend) error { return b.Activate(t.Context(), "B", 1) }
	for _, c := range []struct {
		before, after string
		booted        string
		do            func(b *custom.Backend) error
		ok            bool
	}{
		{"A good next\nB good\n", "A good next\nB bad\n", "A", invalidate, true},
		{"A good next\nB good\n", "A good next\nB good\n", "A", invalidate, false},
		{"A good\nB good next\n", "A good\nB bad next\n", "A", invalidate, false},
		{"A bad\nB trying 0\n", "A bad\nB bad\n", "", invalidate, true},
		{"A bad\nB good next\n", "A bad\nB bad\n", "", invalidate, false},
		{"A good next\nB bad\n", "A good\nB trying 1 next\n", "A", activate, true},
		{"A good next\nB bad\n", "A good next\nB trying 1\n", "A", activate, false},
		{"A good next\nB bad\n", "A good\nB trying 0 next\n", "A", activate, false},
		{"A good next\nB bad\n", "A good\nB trying 1 next\n", "A", func(b *custom.Backend) error { return b.Activate(t.Context(), "B", 0) }, false},
		{"A good\nB trying 1 next\n", "A good\nB trying 1 next\n", "B", func(b *custom.Backend) error { return b.MarkGood(t.Context(), "B") }, false},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "loader")
		text := "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in state) [ -e done ] && cat after || cat before ;; *) : >done ;; esac\n"
		for name, content := range map[string]string{"loader": text, "before": c.before, "after": c.after} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.do(open(t, commands(path), c.booted)); (err == nil) != c.ok {
			t.Errorf("from %q to %q: %v; want success: %v", c.before, c.after, err, c.ok)
		}
	}
}
