package uboot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
)

// tools skips the test if libubootenv's programs are missing.
func tools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"fw_printenv", "fw_setenv"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed (Debian: libubootenv-tool)", name)
		}
	}
}

// generated is an environment of files, with the configuration of fw_printenv.
type generated struct {
	config string
	areas  []boot.Area
	odd    bool // it has something that readers may treat differently
}

const (
	genSize  = 1024
	ordinary = 60 // per cent of the environments that have nothing odd
)

// generate writes an environment of one or two copies. Names repeat often.
func generate(t *testing.T, dir string, rng *rand.Rand) generated {
	t.Helper()
	g := generated{config: filepath.Join(dir, "config")}
	g.odd = rng.IntN(100) >= ordinary
	copies := 1 + rng.IntN(2)
	var config strings.Builder
	for i := range copies {
		data := boottest.UBootEntries(rng, g.odd)
		raw := make([]byte, 0, genSize)
		raw = binary.LittleEndian.AppendUint32(raw, 0)
		if copies == 2 {
			raw = append(raw, []byte{0, 1, 2, 127, 128, 254, 255}[rng.IntN(7)])
		}
		head := len(raw)
		raw = append(raw, data...)
		for pad := []byte{0, 0xff, 'x'}[rng.IntN(3)]; len(raw) < genSize; {
			raw = append(raw, pad)
		}
		sum := crc32.ChecksumIEEE(raw[head:])
		if rng.IntN(10) == 0 {
			sum++
		}
		binary.LittleEndian.PutUint32(raw, sum)
		name := filepath.Join(dir, fmt.Sprint("env", i))
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		g.areas = append(g.areas, boottest.OpenFileArea(t, name))
		fmt.Fprintf(&config, "%s 0x0 %#x\n", name, genSize)
	}
	if err := os.WriteFile(g.config, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

// listed returns what fw_printenv prints; ok is false if it finds no environment.
func listed(g generated) (vars map[string]string, ok bool) {
	out, err := exec.Command("fw_printenv", "-c", g.config).Output()
	vars = map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\n"), "\n") {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	return vars, err == nil
}

// Every generated environment is refused, or has the value of each variable that fw_printenv prints. Whether U-Boot reads
// the same is checked by the refusals: [env.get] is U-Boot's rule, [env.tool] is libubootenv's.
func TestReadsAsFWPrintenv(t *testing.T) {
	tools(t)
	rng, dir := rand.New(rand.NewPCG(19, 1)), t.TempDir()
	read, refused := 0, 0
	for n := range boottest.Rounds(t, 300) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			g := generate(t, dir, rng)
			s, err := newStorage(g.areas, "")
			if err != nil {
				t.Fatal(err)
			}
			s.own = []string{"BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"}
			want, ok := listed(g)
			l, err := s.load()
			if err != nil {
				refused++
				if ok && !g.odd && !strings.Contains(err.Error(), "expected letters") {
					t.Errorf("an ordinary environment is refused: %v", err)
				}
				return
			}
			read++
			if !ok {
				t.Fatal("fw_printenv finds no environment, but the updater does")
			}
			for _, name := range s.own {
				if got := l.env.get(name); got != want[name] {
					t.Errorf("%s is %q in %q; fw_printenv prints %q", name, got, l.env.entries, want[name])
				}
			}
		})
	}
	t.Logf("%d environments read, %d refused", read, refused)
	if read < refused {
		t.Error("most environments are refused: this tests nothing")
	}
}

// fw_printenv prints every change afterwards, and a change of fw_setenv is read.
func TestChangesAsFWSetenv(t *testing.T) {
	tools(t)
	rng, dir := rand.New(rand.NewPCG(19, 2)), t.TempDir()
	changed := 0
	for n := range boottest.Rounds(t, 100) {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			g := generate(t, dir, rng)
			b, err := New(Options{Areas: g.areas, Slots: []string{"A", "B"}}, "A")
			if err != nil {
				t.Fatal(err)
			}
			if b.Activate(t.Context(), "B", 2) != nil || b.MarkGood(t.Context(), "A") != nil {
				return
			}
			changed++
			vars, _ := listed(g)
			if order := strings.Fields(vars["BOOT_ORDER"]); len(order) == 0 || order[0] != "B" || vars["BOOT_B_LEFT"] != "2" {
				t.Errorf("after Activate fw_printenv prints %q", vars)
			}
			if err := b.MarkBad(t.Context(), "B"); err != nil {
				t.Fatal(err)
			}
			vars, _ = listed(g)
			if slices.Contains(strings.Fields(vars["BOOT_ORDER"]), "B") || vars["BOOT_B_LEFT"] != "0" {
				t.Errorf("after MarkBad fw_printenv prints %q", vars)
			}
			if out, err := exec.Command("fw_setenv", "-c", g.config, "BOOT_ORDER", "B A").CombinedOutput(); err != nil {
				t.Fatalf("fw_setenv: %v: %s", err, out)
			}
			if err := b.Activate(t.Context(), "B", 1); err != nil {
				t.Fatal(err)
			}
			if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
				t.Errorf("after fw_setenv State = %+v, %v; want B", st, err)
			}
		})
	}
	t.Logf("%d environments changed", changed)
	if changed == 0 {
		t.Error("no environment was changed")
	}
}
