package uboot_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/uboot"
)

const size = 0x800 // 4 sectors, so that every subset of them is tried

// env makes a copy as mkenvimage does: padding 0xff.
func env(redundant bool, flag byte, vars ...string) []byte {
	head := 4
	if redundant {
		head = 5
	}
	out := make([]byte, size)
	for i := range out {
		out[i] = 0xff
	}
	copy(out[head:], strings.Join(vars, "\x00")+"\x00\x00")
	if redundant {
		out[4] = flag
	}
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[head:]))
	return out
}

var good = []string{"bootdelay=0", "BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3", "last=x=y"}

// script is RAUC's boot script on U-Boot: it takes the copy that U-Boot loads, the first slot of BOOT_ORDER
// with tries left, takes one off and saves into the other copy; none left: all back to 3. It is written apart from the backend.
func script(areas [][]byte) string {
	head := 3 + len(areas)
	valid := func(a []byte) bool { return binary.LittleEndian.Uint32(a) == crc32.ChecksumIEEE(a[head:]) }
	use := -1
	for i, a := range areas {
		if !valid(a) {
			continue
		}
		switch {
		case use < 0:
			use = i
		case a[4] == 0 && areas[use][4] == 255:
			use = i
		case a[4] == 255 && areas[use][4] == 0:
		case a[4] > areas[use][4]:
			use = i
		}
	}
	if use < 0 {
		return ""
	}
	text, _, _ := strings.Cut(string(areas[use][head:]), "\x00\x00")
	vars := strings.Split(text, "\x00")
	find := func(name string) int {
		return slices.IndexFunc(vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	get := func(name string) string {
		if i := find(name); i >= 0 {
			return vars[i][len(name)+1:]
		}
		return ""
	}
	chosen := ""
	for s := range strings.FieldsSeq(get("BOOT_ORDER")) {
		n, _ := strconv.Atoi(get("BOOT_" + s + "_LEFT"))
		if n > 0 {
			chosen, vars[find("BOOT_"+s+"_LEFT")] = s, fmt.Sprintf("BOOT_%s_LEFT=%d", s, n-1)
			break
		}
	}
	if chosen == "" {
		for _, s := range []string{"A", "B"} {
			if i := find("BOOT_" + s + "_LEFT"); i >= 0 {
				vars[i] = "BOOT_" + s + "_LEFT=3"
			}
		}
	}
	to := (use + 1) % len(areas)
	flag := byte(0)
	if len(areas) == 2 {
		flag = areas[use][4] + 1
	}
	areas[to] = env(len(areas) == 2, flag, vars...)
	return chosen
}

func open(a []boot.Area, booted string) (boot.Backend, error) {
	return uboot.New(a, []string{"A", "B"}, booted)
}

func TestContract(t *testing.T) {
	for _, flags := range [][2]byte{{1, 1}, {1, 2}, {255, 0}, {0, 255}, {254, 255}} {
		t.Run(fmt.Sprint("redundant", flags), func(t *testing.T) {
			boottest.Contract(t, boottest.Rig{
				Fresh: func(*testing.T) [][]byte { return [][]byte{env(true, flags[0], good...), env(true, flags[1], good...)} },
				Open:  open, Boot: script,
			})
		})
	}
	t.Run("one bad copy", func(t *testing.T) {
		boottest.Contract(t, boottest.Rig{
			Fresh: func(*testing.T) [][]byte { return [][]byte{make([]byte, size), env(true, 7, good...)} },
			Open:  open, Boot: script,
		})
	})
	// A single copy keeps the same promise here because its variables fit one sector.
	t.Run("single", func(t *testing.T) {
		boottest.Contract(t, boottest.Rig{
			Fresh: func(*testing.T) [][]byte { return [][]byte{env(false, 0, good...)} },
			Open:  open, Boot: script,
		})
	})
}

// U-Boot's choice between two good copies, measured with U-Boot 2023.01 and libubootenv.
func TestCopyInUse(t *testing.T) {
	for _, c := range []struct{ flag1, flag2, want byte }{
		{0xff, 0x00, 2}, {0x00, 0xff, 1}, {0xfe, 0x00, 1}, {5, 5, 1}, {2, 1, 1}, {0x7f, 0x80, 2},
	} {
		m := boottest.NewMedium(
			env(true, c.flag1, "BOOT_ORDER=A", "BOOT_A_LEFT=1"), env(true, c.flag2, "BOOT_ORDER=B", "BOOT_B_LEFT=1"))
		b, err := open(m.Areas(), "")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if want := map[byte]string{1: "A", 2: "B"}[c.want]; err != nil || st.Next != want {
			t.Errorf("flags %02x, %02x: State = %+v, %v; want copy %d", c.flag1, c.flag2, st, err, c.want)
		}
	}
}

// Every operation is understood by fw_printenv, and fw_setenv's changes by us.
func TestFWPrintenv(t *testing.T) {
	for _, tool := range []string{"fw_printenv", "fw_setenv", "mkenvimage"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	for _, copies := range []int{1, 2} {
		t.Run(fmt.Sprint(copies), func(t *testing.T) {
			dir := t.TempDir()
			run := func(name string, args ...string) string {
				t.Helper()
				cmd := exec.Command(name, args...)
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%s %v: %v: %s", name, args, err, out)
				}
				return string(out)
			}
			write := func(name, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("vars", "BOOT_ORDER=A B\nBOOT_A_LEFT=2\nBOOT_B_LEFT=3\nkeep=me\n")
			args := []string{"-s", "0x2000", "-o", "env1", "vars"}
			config := "env1 0x0 0x2000\n"
			if copies == 2 {
				args, config = append([]string{"-r"}, args...), config+"env2 0x0 0x2000\n"
			}
			write("config", "# copies\n"+config)
			run("mkenvimage", args...)
			run("cp", "env1", "env2")
			f, err := os.Open(filepath.Join(dir, "config"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			parsed, err := uboot.ParseFWEnvConfig(f)
			if err != nil || len(parsed) != copies || parsed[0] != (uboot.AreaConfig{Device: "env1", Size: 0x2000}) {
				t.Fatalf("ParseFWEnvConfig = %+v, %v", parsed, err)
			}
			var areas []boot.Area
			for _, a := range parsed {
				areas = append(areas, boottest.OpenFileArea(t, filepath.Join(dir, a.Device)))
			}
			b, err := open(areas, "A")
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				name string
				do   func() error
				want string
			}{
				{"mark good", func() error { return b.MarkGood(t.Context(), "A") }, "BOOT_A_LEFT=3 BOOT_B_LEFT=3 BOOT_ORDER=A B keep=me"},
				{"invalidate", func() error { return b.Invalidate(t.Context(), "B") }, "BOOT_A_LEFT=3 BOOT_B_LEFT=0 BOOT_ORDER=A keep=me"},
				{"activate", func() error { return b.Activate(t.Context(), "B", 5) }, "BOOT_A_LEFT=3 BOOT_B_LEFT=5 BOOT_ORDER=B A keep=me"},
				{"fw_setenv", func() error { run("fw_setenv", "-c", "config", "BOOT_B_LEFT", "1"); return nil }, "BOOT_A_LEFT=3 BOOT_B_LEFT=1 BOOT_ORDER=B A keep=me"},
				{"mark bad", func() error { return b.MarkBad(t.Context(), "B") }, "BOOT_A_LEFT=3 BOOT_B_LEFT=0 BOOT_ORDER=A keep=me"},
			} {
				if err := step.do(); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				lines := strings.Split(strings.TrimSpace(run("fw_printenv", "-c", "config")), "\n")
				slices.Sort(lines)
				if got := strings.Join(lines, " "); got != step.want {
					t.Errorf("after %s fw_printenv prints %s; want %s", step.name, got, step.want)
				}
			}
		})
	}
}

func TestRepair(t *testing.T) {
	m := boottest.NewMedium(make([]byte, size), env(true, 255, good...))
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.State(t.Context())
	if err != nil || len(st.Degraded) != 1 || !strings.Contains(st.Degraded[0], "copy 1") || st.Next != "A" {
		t.Fatalf("State = %+v, %v; want copy 1 degraded and A", st, err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || len(st.Degraded) != 0 || st.Next != "A" {
		t.Errorf("after Repair State = %+v, %v", st, err)
	}
	if got := m.Snapshot()[0][4]; got != 0 {
		t.Errorf("the repaired copy has flag %d; want 0, which follows 255", got)
	}
}

func TestBadEnvironments(t *testing.T) {
	for _, c := range []struct {
		name  string
		areas [][]byte
	}{
		{"single", [][]byte{make([]byte, size)}},
		{"both copies", [][]byte{make([]byte, size), make([]byte, size)}},
		{"no name", [][]byte{env(false, 0, "=x")}},
		{"no value", [][]byte{env(false, 0, "x")}},
	} {
		m := boottest.NewMedium(c.areas...)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{"Activate": b.Activate(t.Context(), "B", 1), "MarkGood": b.MarkGood(t.Context(), "A"), "Repair": b.Repair(t.Context())} {
			if !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
				t.Errorf("%s: %s = %v, %d writes; want ErrState and none", c.name, name, err, m.Writes())
			}
		}
	}
	if _, err := open(boottest.NewMedium(make([]byte, 64), make([]byte, 65)).Areas(), "A"); err == nil {
		t.Error("copies of different sizes were taken")
	}
}

func TestParseFWEnvConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 -0x4000 0x4000 # end\n", ""},
		{"/dev/mtd1 0x0 0x4000 0x1000 4\n", ""},
		{"", "0 copies"},
		{"a 0 0x10\nb 0 0x10\nc 0 0x10\n", "3 copies"},
		{"a 0\n", "line 1: 2 fields"},
		{"a 0 zero\n", "no number"},
		{"a 0 0\n", "size is 0"},
		{"a 0 0x10000000\n", "size is"},
	} {
		got, err := uboot.ParseFWEnvConfig(strings.NewReader(c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("ParseFWEnvConfig(%q) = %v, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add(env(true, 1, good...)[5:], byte(1))
	f.Add([]byte("a=b\x00\x00"), byte(255))
	f.Add([]byte("a=b"), byte(0))
	f.Add([]byte{0}, byte(0))
	f.Fuzz(func(t *testing.T, data []byte, flag byte) {
		raw := append([]byte{0, 0, 0, 0, flag}, data...)
		binary.LittleEndian.PutUint32(raw, crc32.ChecksumIEEE(data))
		m := boottest.NewMedium(raw, make([]byte, len(raw)))
		b, err := open(m.Areas(), "A")
		if err != nil {
			return
		}
		if _, err := b.State(t.Context()); err != nil {
			return
		}
		if err := b.MarkGood(t.Context(), "A"); err != nil {
			return
		}
		if st, err := b.State(t.Context()); err != nil || st.Next == "" {
			t.Fatalf("after mark good State = %+v, %v", st, err)
		}
	})
}
