//go:build vm

package loaders

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
	"updater/boot/uboot"
)

// A sample is a list of generated boot states that the backend accepts, each as generated and after a change, with the forecast of three boots.
type sample struct {
	states    [][]byte
	forecasts []string
	refused   int
}

// add appends a state of the areas if the backend accepts it.
func (s *sample) add(t *testing.T, open func(areas []boot.Area) (boot.Backend, error), rng *rand.Rand, areas ...[]byte) {
	t.Helper()
	m := boottest.NewMedium(areas...)
	b, err := open(m.Areas())
	must(t, err)
	if !s.take(t, b, m) {
		s.refused++
		return
	}
	change := []func() error{
		func() error { return b.Activate(t.Context(), "B", 1) },
		func() error { return b.MarkBad(t.Context(), "B") },
		func() error { return b.MarkGood(t.Context(), "A") },
	}[rng.IntN(3)]
	if change() == nil && !s.take(t, b, m) {
		t.Errorf("%q: refused after a change", areas)
	}
}

func (s *sample) take(t *testing.T, b boot.Backend, m *boottest.Medium) bool {
	st, err := b.State(t.Context())
	if err != nil {
		return false
	}
	for _, f := range st.Findings {
		if strings.Contains(f.Evidence, "default") {
			return false // the script's own
		}
	}
	s.states = append(s.states, slices.Concat(m.Snapshot()...))
	s.forecasts = append(s.forecasts, strings.Join(st.Boots, "."))
	return true
}

// run boots a machine that prints a line "CASE number first.second.third." for each state.
func (s *sample) run(t *testing.T, args []string) {
	t.Helper()
	t.Logf("%d states, %d refused", len(s.states), s.refused)
	_, lines, err := bootOnce(t.Context(), regexp.MustCompile("CASE end"), args)
	must(t, err)
	wrong := 0
	for i, want := range s.forecasts {
		if !slices.Contains(lines, fmt.Sprintf("CASE %d %s.", i, want)) {
			wrong++
			t.Errorf("state %d: forecast %s; the boot loader: %q; %.300q", i, want, matching(lines, fmt.Sprintf("CASE %d ", i)), s.states[i])
		}
	}
	if wrong > 0 {
		t.Logf("the console: %s", strings.Join(lines[:min(len(lines), 60)], "\n"))
	}
}

func matching(lines []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, prefix) })
}

// genStates is the number of states that the short form generates.
const genStates = 60

// TestUBootGenerated: U-Boot imports generated environments as it does at boot, and chooses three times what the backend forecasts.
func TestUBootGenerated(t *testing.T) {
	rng, s := rand.New(rand.NewPCG(19, 5)), sample{}
	const size = 1024
	for n := boottest.Rounds(t, genStates); len(s.states) < n; {
		raw := append(make([]byte, 5), "BOOT_ORDER=A B\x00BOOT_A_LEFT=3\x00BOOT_B_LEFT=3\x00"...)
		raw = append(raw, boottest.UBootEntries(rng, rng.IntN(2) == 0)...)
		for pad := []byte{0, 0xff, 'x'}[rng.IntN(3)]; len(raw) < size; {
			raw = append(raw, pad)
		}
		binary.LittleEndian.PutUint32(raw, crc32.ChecksumIEEE(raw[5:]))
		s.add(t, func(areas []boot.Area) (boot.Backend, error) {
			return uboot.New(uboot.Options{Areas: areas, Slots: []string{"A", "B"}}, "A")
		}, rng, raw, raw)
	}
	var script, data strings.Builder
	for i, state := range s.states {
		if state[4] == 255 || state[size+4] > state[4] {
			state = state[size:] // the copy in use
		}
		data.Write(state[:size])
		fmt.Fprintf(&script, "mmc read 0x2000000 %#x 2\nenv import -d -c 0x2000000 %#x\n", 0x4000+2*i, size)
		for line := range strings.Lines(example(t, "uboot/rauc.env")) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name == "ab_A" || name == "ab_B" || name == "ab_choose" || name == "ab_refill" {
				value = strings.ReplaceAll(strings.ReplaceAll(value, "; saveenv", ""), "; reset", "")
				fmt.Fprintf(&script, "setenv %s '%s'\n", name, value)
			}
		}
		script.WriteString("setenv boots\n" + strings.Repeat("run ab_choose\nsetenv boots \"${boots}${slot}.\"\n", 3))
		fmt.Fprintf(&script, "echo \"CASE %d ${boots}\"\n", i)
	}
	script.WriteString("echo CASE end\n")
	load := "bootdelay=0\nbootcmd=mmc dev 0"
	for at := 0; at < script.Len()+512; at += 64 << 10 { // a longer read times out
		load += fmt.Sprintf("; mmc read %#x %#x 0x80", 0x3000000+at, 0x2000+at/512)
	}
	r := newUBoot(t, uboot.RAUC, load+"; source 0x3000000; reset\n")
	must(t, os.WriteFile(filepath.Join(r.dir, "script"), []byte(script.String()), 0o600))
	must(t, os.WriteFile(filepath.Join(r.dir, "data"), []byte(data.String()), 0o600))
	need(t, "mkimage")
	sh(t, r.dir, `truncate -s 32M sd.img; mkimage -A x86 -T script -C none -d script script.img >/dev/null
		dd if=script.img of=sd.img bs=1M seek=4 conv=notrunc status=none; dd if=data of=sd.img bs=1M seek=8 conv=notrunc status=none`)
	s.run(t, r.args("-device", "sd-card,drive=c0", "-drive", "id=c0,if=none,format=raw,file="+r.sd))
}

// TestGrubGenerated: GRUB loads and saves generated blocks, and chooses three times what the backend forecasts.
func TestGrubGenerated(t *testing.T) {
	for dialect, names := range map[grub.Dialect][]string{grub.RAUC: {"A_OK", "A_TRY", "B_OK", "B_TRY"}, grub.Tries: {"A_LEFT", "B_LEFT"}} {
		t.Run(string(dialect), func(t *testing.T) {
			rng, s := rand.New(rand.NewPCG(19, 6)), sample{}
			for n := boottest.Rounds(t, genStates); len(s.states) < n; {
				s.add(t, func(areas []boot.Area) (boot.Backend, error) {
					return grub.New(grub.Options{Area: areas[0], Slots: []string{"A", "B"}, Dialect: dialect}, "A")
				}, rng, boottest.GrubBlock(rng, names))
			}
			r := newGrub(t, dialect, false)
			must(t, os.Mkdir(filepath.Join(r.dir, "b"), 0o700))
			cfg := "search --no-floppy --set=esp --label ESP\nfor n in"
			for i, state := range s.states {
				must(t, os.WriteFile(filepath.Join(r.dir, "b", fmt.Sprint(i)), state, 0o600))
				cfg += fmt.Sprint(" ", i)
			}
			cfg += "; do\n set env=\"($esp)/b/$n\"\n set boots=\"\"\n for boot in 1 2 3; do\n  unset ORDER; unset " + strings.Join(names, "; unset ") +
				"\n  source ($esp)/grub/" + string(dialect) + ".cfg\n  set boots=\"$boots$slot.\"\n done\n echo \"CASE $n $boots\"\ndone\necho \"CASE end\"\nhalt\n"
			must(t, os.WriteFile(filepath.Join(r.dir, "grub.cfg"), []byte(cfg), 0o600))
			sh(t, r.dir, `mcopy -o -i disk.img@@1M grub.cfg ::/grub/; mcopy -i disk.img@@1M -s b ::/`)
			s.run(t, append(efiArgs(t, filepath.Join(r.dir, "vars.fd")), disk(r.disk)...))
		})
	}
}
