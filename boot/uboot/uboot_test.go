package uboot_test

import (
	"bytes"
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

	"golang.org/x/sys/unix"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/uboot"
	"updater/internal/crashdisk/bootdisk"
)

const size = 0x800 // 4 sectors, so that every subset of them is tried

// env returns a copy as mkenvimage writes it, with padding of 0xff.
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

// ubootEnv models U-Boot's environment, written independently of the backend.
type ubootEnv struct {
	areas   [][]byte
	use     int // copy in use, -1 when none is good
	boolean bool
	vars    []string
}

// load loads the copy that U-Boot uses.
func load(areas [][]byte, boolean bool) *ubootEnv {
	u := &ubootEnv{areas: areas, use: -1, boolean: boolean}
	head := 3 + len(areas)
	for i, a := range areas {
		if binary.LittleEndian.Uint32(a) != crc32.ChecksumIEEE(a[head:]) {
			continue
		}
		switch {
		case u.use < 0:
			u.use = i
		case boolean:
			if a[4] == 1 && areas[u.use][4] == 0 {
				u.use = i
			}
		case a[4] == 0 && areas[u.use][4] == 255:
			u.use = i
		case a[4] == 255 && areas[u.use][4] == 0:
		case a[4] > areas[u.use][4]:
			u.use = i
		}
	}
	if u.use >= 0 {
		text, _, _ := strings.Cut(string(areas[u.use][head:]), "\x00\x00")
		u.vars = strings.Split(text, "\x00")
	}
	return u
}

func (u *ubootEnv) find(name string) int {
	return slices.IndexFunc(u.vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}

func (u *ubootEnv) get(name string) string {
	if i := u.find(name); i >= 0 {
		return u.vars[i][len(name)+1:]
	}
	return ""
}

func (u *ubootEnv) number(name string) int {
	n, _ := strconv.Atoi(u.get(name))
	return n
}

func (u *ubootEnv) set(name, value string) {
	if i := u.find(name); i >= 0 {
		u.vars[i] = name + "=" + value
	} else {
		u.vars = append(u.vars, name+"="+value)
	}
}

// save models saveenv, which writes the other copy.
func (u *ubootEnv) save() {
	to, flag := (u.use+1)%len(u.areas), byte(0)
	if len(u.areas) == 2 {
		flag = u.areas[u.use][4] + 1
	}
	if u.boolean {
		flag = 1
	}
	u.areas[to] = env(len(u.areas) == 2, flag, u.vars...)
	if u.boolean {
		u.areas[u.use][4] = 0
	}
	u.use = to
}

// script models RAUC's boot script: it chooses the first slot of BOOT_ORDER with tries left and spends one. If none is left
// it refills all to 3.
func script(u *ubootEnv) string {
	if u.use < 0 {
		return ""
	}
	chosen := ""
	for s := range strings.FieldsSeq(u.get("BOOT_ORDER")) {
		if n := u.number("BOOT_" + s + "_LEFT"); n > 0 {
			u.set("BOOT_"+s+"_LEFT", strconv.Itoa(n-1))
			chosen = s
			break
		}
	}
	if chosen == "" {
		for _, s := range []string{"A", "B"} {
			if u.find("BOOT_"+s+"_LEFT") >= 0 {
				u.set("BOOT_"+s+"_LEFT", "3")
			}
		}
	}
	u.save()
	return chosen
}

// bootcount models U-Boot's boot counting (drivers/bootcount/bootcount_env.c, common/autoboot.c) with an altbootcmd that
// goes back to the other slot.
func bootcount(u *ubootEnv) string {
	if u.use < 0 {
		return ""
	}
	active := u.get("active")
	if u.get("upgrade_available") == "1" {
		u.set("bootcount", strconv.Itoa(u.number("bootcount")+1))
		if u.number("bootcount") > u.number("bootlimit") {
			active = map[string]string{"A": "B", "B": "A"}[active]
			u.set("active", active)
			u.set("upgrade_available", "0")
			u.set("bootcount", "0")
		}
		u.save()
	}
	return active
}

// others returns the foreign variables.
func others(d boottest.Disk) []string {
	return slices.DeleteFunc(load(d.Areas, false).vars, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "BOOT_") || slices.Contains([]string{"active", "upgrade_available", "bootcount", "bootlimit", "updater_bad"}, name)
	})
}

func open(a []boot.Area, booted string) (boot.Backend, error) {
	return uboot.New(uboot.Options{Areas: a, Slots: []string{"A", "B"}}, booted)
}

// rig returns a rig on the given areas.
func rig(fresh ...[]byte) boottest.Rig {
	return boottest.Rig{
		Volatile: bootdisk.New,
		Fresh:    func(*testing.T) boottest.Disk { return boottest.Disk{Areas: fresh} },
		Open:     func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:     func(d *boottest.Disk) string { return script(load(d.Areas, false)) },
		Caps:     boot.Caps{MaxTries: 9, MarkGoodEveryBoot: true, SwitchAtomic: len(fresh) == 2},
		Recovery: func(d boottest.Disk) bool { return load(d.Areas, false).get("recovery") == "1" },
		Others:   others,
	}
}

func TestContract(t *testing.T) {
	for _, flags := range [][2]byte{{1, 1}, {1, 2}, {255, 0}, {0, 255}, {254, 255}} {
		t.Run(fmt.Sprint("redundant", flags), func(t *testing.T) {
			boottest.Contract(t, rig(env(true, flags[0], good...), env(true, flags[1], good...)))
		})
	}
	t.Run("one bad copy", func(t *testing.T) { boottest.Contract(t, rig(make([]byte, size), env(true, 7, good...))) })
	// A single copy keeps the same promise here because its variables fit one sector.
	t.Run("single", func(t *testing.T) { boottest.Contract(t, rig(env(false, 0, good...))) })
}

var counted = []string{"altbootcmd=run back", "active=A", "upgrade_available=0", "bootcount=0", "bootlimit=3", "last=x=y"}

// The bootcount dialect, whose good boots write nothing.
func TestContractBootcount(t *testing.T) {
	r := rig(env(true, 1, counted...), env(true, 1, counted...))
	r.AlwaysBoots = true
	r.Caps.MarkGoodEveryBoot = false
	r.Boot = func(d *boottest.Disk) string { return bootcount(load(d.Areas, false)) }
	r.Open = func(m *boottest.Medium, booted string) (boot.Backend, error) {
		return uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, booted)
	}
	boottest.Contract(t, r)
}

// The flag scheme of NOR flash: the new copy is whole before the old one's flag is cleared.
func TestContractBooleanFlags(t *testing.T) {
	for _, flags := range [][2]byte{{1, 0}, {0, 1}, {1, 1}} {
		t.Run(fmt.Sprint(flags), func(t *testing.T) {
			r := rig(env(true, flags[0], good...), env(true, flags[1], good...))
			r.Boot = func(d *boottest.Disk) string { return script(load(d.Areas, true)) }
			r.Open = func(m *boottest.Medium, booted string) (boot.Backend, error) {
				return uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Flags: uboot.Boolean}, booted)
			}
			r.Recovery = func(d boottest.Disk) bool { return load(d.Areas, true).get("recovery") == "1" }
			r.Others = nil
			boottest.Contract(t, r)
		})
	}
}

// The names of the variables can be configured.
func TestNames(t *testing.T) {
	m := boottest.NewMedium(env(false, 0, "order=A B", "tries_A=3", "tries_B=3"))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Names: uboot.Names{Order: "order", Left: "tries_{slot}"}}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 2); err != nil {
		t.Fatal(err)
	}
	if u := load(m.Snapshot(), false); u.get("order") != "B A" || u.get("tries_B") != "2" || u.find("BOOT_ORDER") >= 0 {
		t.Errorf("the environment is %q", u.vars)
	}
	for _, o := range []uboot.Options{
		{Names: uboot.Names{Left: "tries"}}, {Dialect: "other"}, {Flags: "other"}, {Dialect: uboot.Bootcount, Slots: []string{"A", "B", "C"}},
	} {
		o.Areas = m.Areas()
		if o.Slots == nil {
			o.Slots = []string{"A", "B"}
		}
		if _, err := uboot.New(o, "A"); !errors.Is(err, boot.ErrState) {
			t.Errorf("New(%+v) = %v; want ErrState", o, err)
		}
	}
}

// While a slot is incomplete, boots of the other one are not counted: altbootcmd would boot the incomplete slot.
func TestBootcountNeverFallsBackToABadSlot(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, counted...), env(true, 1, counted...))
	open := func(booted string) boot.Backend {
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, booted)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := open("").Invalidate(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	if err := open("").Activate(t.Context(), "A", 2); err != nil {
		t.Fatal(err)
	}
	areas := m.Snapshot()
	for range 6 {
		if got := bootcount(load(areas, false)); got != "A" {
			t.Fatalf("U-Boot boots %q, whose content is incomplete", got)
		}
	}
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

// fw_printenv prints the result of every operation, and changes of fw_setenv are read.
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
				{"fw_setenv", func() error { run("fw_setenv", "-c", "config", "BOOT_B_LEFT", "1"); return nil },
					"BOOT_A_LEFT=3 BOOT_B_LEFT=1 BOOT_ORDER=B A keep=me"},
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
	if err != nil || len(st.Findings) == 0 || !strings.Contains(st.Findings[0].Evidence, "copy 1") || st.Next != "A" {
		t.Fatalf("State = %+v, %v; want copy 1 degraded and A", st, err)
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || len(st.Findings) != 0 || st.Next != "A" {
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
		{"removed for U-Boot alone", [][]byte{env(false, 0, "BOOT_ORDER=A", "BOOT_ORDER")}},
		{"set for U-Boot alone", [][]byte{env(false, 0, "BOOT_ORDER=A", " BOOT_ORDER=B")}},
		{"quoted", [][]byte{env(false, 0, `BOOT_ORDER=A\ B`)}},
		{"CR", [][]byte{env(false, 0, "BOOT_ORDER=A B\r")}},
		{"behind an empty entry", [][]byte{env(false, 0, "", "BOOT_ORDER=A")}},
		{"hexadecimal tries", [][]byte{env(false, 0, "BOOT_ORDER=A", "BOOT_A_LEFT=a")}},
	} {
		m := boottest.NewMedium(c.areas...)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"Activate": b.Activate(t.Context(), "B", 1), "MarkGood": b.MarkGood(t.Context(), "A"), "Repair": b.Repair(t.Context()),
		} {
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
		{"/dev/mtd1 0x0 0x4000 0x1000 -1\n", "-1 sectors"},
		{"a 0\n", "line 1: 2 fields"},
		{"a 0 zero\n", "not a number"},
		{"a 0 1_0\n", "not a number"},
		{"a 0b1 10\n", "not a number"},
		{"a 09 10\n", "not a number"},
		{"a --1 10\n", "not a number"},
		{"a 0 0\n", "size of a is 0"},
		{"a 0 0x10000000\n", "size of a is"},
		{"a 0 10\na 8 10\n", "same bytes"},
		{yaml + "other:\n", "expected one namespace"},
		{yaml + "    - path: b\n      path: c\n", "path is set twice"},
		{yaml + "    - offset: 1\n", "device 2 has no path"},
		{yaml + "    - path: b\n      size: 1\n", `unexpected key "size"`},
		{"u:\n  devices:\n    - path: a\n", "devices come before size"},
		{"u:\n  size: 0x10\n  devices: []\n", "unexpected key"},
		{"u:\n  size: 0x10\n", "0 copies"},
	} {
		got, err := uboot.ParseFWEnvConfig(strings.NewReader(c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("ParseFWEnvConfig(%q) = %v, %v; want %q", c.text, got, err, c.want)
		}
	}
}

const yaml = "uboot:\n  size : 0x4000\n  lockfile : /run/x.lock\n  devices:\n" +
	"    - path : /dev/mmcblk0\n      offset : 0x140000\n      disablelock: yes\n"

// Numbers are read as libubootenv reads them: the offset as in C, sizes as hexadecimal numbers.
func TestFWEnvConfigNumbers(t *testing.T) {
	for text, want := range map[string][]uboot.AreaConfig{
		"a 010 4000 10 10\n":           {{Device: "a", Offset: 8, Size: 0x4000, Blocks: 16}},
		"a -4096 0x4000 # x\n":         {{Device: "a", Offset: -4096, Size: 0x4000}},
		"#x\n # y\na#1 0 10\nb 0 10\n": {{Device: "a#1", Size: 16}, {Device: "b", Size: 16}},
		yaml:                           {{Device: "/dev/mmcblk0", Offset: 0x140000, Size: 0x4000}},
		yaml + "    - path: '/dev/x' # y\n      offset: 16\n  writelist:\n    - BOOT_ORDER:sw\n": {
			{Device: "/dev/mmcblk0", Offset: 0x140000, Size: 0x4000}, {Device: "/dev/x", Offset: 16, Size: 0x4000},
		},
	} {
		got, err := uboot.ParseFWEnvConfig(strings.NewReader(text))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ParseFWEnvConfig(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, flag byte) { takes(t, data, flag) })
}

func FuzzFWEnvConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		areas, err := uboot.ParseFWEnvConfig(strings.NewReader(text))
		if err == nil && (len(areas) < 1 || len(areas) > 2 || areas[0].Size < 1 || areas[0].Size > 1<<20 || areas[0].Blocks < 0) {
			t.Fatalf("ParseFWEnvConfig = %+v", areas)
		}
	})
}

// fw_printenv lists a new environment, in one area and in two, and its slots can be switched.
func TestCreate(t *testing.T) {
	const text = "# made by make u-boot-initial-env\n\nbootcmd=run slots; reset\r\nBOOT_ORDER=A B\nbaudrate=115200\nempty=\n"
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := t.TempDir()
			var areas []boot.Area
			var config strings.Builder
			for i := range n {
				name := filepath.Join(dir, fmt.Sprint("env", i))
				if err := os.WriteFile(name, env(n == 2, 9, "old=1"), 0o600); err != nil { // of an earlier life
					t.Fatal(err)
				}
				areas = append(areas, boottest.OpenFileArea(t, name))
				fmt.Fprintf(&config, "%s 0 %#x\n", name, size)
			}
			if err := uboot.Create(areas, text); err != nil {
				t.Fatal(err)
			}
			b, err := uboot.New(uboot.Options{Areas: areas, Slots: []string{"A", "B"}}, "")
			if err == nil {
				err = b.Activate(t.Context(), "B", 3)
			}
			st, bad := b.State(t.Context())
			if err != nil || bad != nil || st.Next != "B" {
				t.Errorf("the slot after a switch is %q: %v, %v", st.Next, err, bad)
			}
			if _, err := exec.LookPath("fw_printenv"); err != nil {
				t.Skip("fw_printenv is not installed (Debian: libubootenv-tool or u-boot-tools)")
			}
			name := filepath.Join(dir, "config")
			if err := os.WriteFile(name, []byte(config.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("fw_printenv", "-c", name).CombinedOutput()
			got := strings.Split(strings.TrimSpace(string(out)), "\n")
			slices.Sort(got)
			want := []string{"BOOT_B_LEFT=3", "BOOT_ORDER=B A", "baudrate=115200", "bootcmd=run slots; reset"}
			for _, line := range want {
				if !slices.Contains(got, line) {
					t.Errorf("fw_printenv has no %s: %v\n%s", line, err, out)
				}
			}
			if slices.Contains(got, "old=1") {
				t.Errorf("fw_printenv still has old=1:\n%s", out)
			}
		})
	}
	name := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	area := boottest.OpenFileArea(t, name)
	for text, want := range map[string]string{
		"": "no variables", "a=1\na=2": "twice", "=1": "expected name=value", "text": "expected name=value",
		"a=" + strings.Repeat("x", size): "has room for",
	} {
		if err := uboot.Create([]boot.Area{area}, text); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), want) {
			t.Errorf("Create(%.20q) = %v; want %q", text, err, want)
		}
	}
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzEnvironment", 9, 6, func(v []string) bool { return takes(t, []byte(v[0]), 7) })
	boottest.Seeds(t, "FuzzFWEnvConfig", 8, 4, func(v []string) bool {
		_, err := uboot.ParseFWEnvConfig(strings.NewReader(v[0]))
		return err == nil
	})
}

// takes marks slot A good in a copy with arbitrary data and a valid checksum. It reports whether the data is accepted.
func takes(t *testing.T, data []byte, flag byte) bool {
	raw := append([]byte{0, 0, 0, 0, flag}, data...)
	binary.LittleEndian.PutUint32(raw, crc32.ChecksumIEEE(data))
	m := boottest.NewMedium(raw, make([]byte, len(raw)))
	b, err := open(m.Areas(), "A")
	if err != nil {
		return false
	}
	if _, err := b.State(t.Context()); err != nil {
		return false
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		return true
	}
	if st, err := b.State(t.Context()); err != nil || st.Next == "" {
		t.Fatalf("after mark good State = %+v, %v", st, err)
	}
	return true
}

// A copy with an unreadable sector is a bad copy, in both dialects and flag schemes.
func TestUnreadableSectors(t *testing.T) {
	t.Run("rauc", func(t *testing.T) { boottest.UnreadableSectors(t, rig(env(true, 1, good...), env(true, 2, good...))) })
	t.Run("boolean", func(t *testing.T) {
		r := rig(env(true, 0, good...), env(true, 1, good...))
		r.Boot = func(d *boottest.Disk) string { return script(load(d.Areas, true)) }
		r.Open = func(m *boottest.Medium, booted string) (boot.Backend, error) {
			return uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Flags: uboot.Boolean}, booted)
		}
		boottest.UnreadableSectors(t, r)
	})
	t.Run("bootcount", func(t *testing.T) {
		r := rig(env(true, 5, counted...), env(true, 4, counted...))
		r.Boot = func(d *boottest.Disk) string { return bootcount(load(d.Areas, false)) }
		r.Open = func(m *boottest.Medium, booted string) (boot.Backend, error) {
			return uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, booted)
		}
		boottest.UnreadableSectors(t, r)
	})
}

// Of repeated entries U-Boot uses the last: State says so, a change applies to it, and Repair removes the others.
func TestRepeatedEntries(t *testing.T) {
	vars := []string{"BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3", "BOOT_ORDER=B A", "BOOT_B_LEFT=2"}
	fresh := func() (*boottest.Medium, boot.Backend) {
		m := boottest.NewMedium(env(true, 1, vars...), env(true, 1, vars...))
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		return m, b
	}
	m, b := fresh()
	st, err := b.State(t.Context())
	if err != nil || st.Next != "B" || len(st.Findings) < 2 || st.Findings[0].Remedy != boot.RemedyRepair {
		t.Fatalf("State = %+v, %v; want slot B and two findings", st, err)
	}
	if err := b.MarkBad(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	if u := load(m.Snapshot(), false); !slices.Equal(u.vars, []string{"BOOT_A_LEFT=3", "BOOT_ORDER=A", "BOOT_B_LEFT=0"}) {
		t.Errorf("after MarkBad the environment is %q", u.vars)
	}
	m, b = fresh()
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if u := load(m.Snapshot(), false); !slices.Equal(u.vars, []string{"BOOT_A_LEFT=3", "BOOT_ORDER=B A", "BOOT_B_LEFT=2"}) {
		t.Errorf("after Repair the environment is %q", u.vars)
	}
}

// Flags that U-Boot's drivers or libubootenv read differently are refused if the copies differ.
func TestBooleanFlags(t *testing.T) {
	for _, c := range []struct {
		flag1, flag2 byte
		want         string // "" is a refusal
	}{{1, 0, "A"}, {0, 1, "B"}, {1, 1, "A"}, {0, 0, "A"}, {1, 255, "B"}, {255, 1, "A"}, {255, 255, ""}, {255, 0, ""}, {0, 255, ""}, {3, 7, ""}} {
		m := boottest.NewMedium(env(true, c.flag1, "BOOT_ORDER=A", "BOOT_A_LEFT=1"), env(true, c.flag2, "BOOT_ORDER=B", "BOOT_B_LEFT=1"))
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Flags: uboot.Boolean}, "")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if c.want == "" && !errors.Is(err, boot.ErrState) || c.want != "" && (err != nil || st.Next != c.want) {
			t.Errorf("flags %#02x, %#02x: State = %+v, %v; want slot %q", c.flag1, c.flag2, st, err, c.want)
		}
	}
}

// Nothing advises to discard an environment whose checksum is valid.
func TestValidEnvironmentIsNotDiscarded(t *testing.T) {
	for _, vars := range [][]string{{"=x"}, {"BOOT_ORDER=A", " BOOT_ORDER=B"}, {"BOOT_ORDER=A\r"}, {"", "a=b"}, {"BOOT_A_LEFT=a"}} {
		b, err := open(boottest.NewMedium(env(false, 0, vars...)).Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) || strings.Contains(err.Error(), "env default") {
			t.Errorf("%q: State = %v; want ErrState without env default", vars, err)
		}
	}
	for name, areas := range map[string][][]byte{
		"one of two":  {env(true, 1, good...)},
		"two of one":  {env(false, 0, good...), env(false, 0, good...)},
		"larger size": {append(env(false, 0, good...), make([]byte, size)...)},
	} {
		b, err := open(boottest.NewMedium(areas...).Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.State(t.Context())
		if !errors.Is(err, boot.ErrState) || strings.Contains(err.Error(), "env default") || !strings.Contains(err.Error(), "correct the configuration") {
			t.Errorf("%s: State = %v; want ErrState that names the configuration", name, err)
		}
	}
}

// A slot whose last try was spent is not tried for ever: a bootlimit of 0 would be no limit.
func TestSpendLastTry(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, counted...), env(true, 1, counted...))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.SpendTry(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	u := load(m.Snapshot(), false)
	if u.number("bootlimit") == 0 {
		t.Error("bootlimit is 0, with which U-Boot never falls back")
	}
	if got := bootcount(u); got != "A" {
		t.Errorf("U-Boot boots slot %s; want A", got)
	}
}

// After Invalidate no copy allows the slot to boot, so that it does not matter which one becomes unreadable.
func TestInvalidateSettles(t *testing.T) {
	for _, flags := range [][2]byte{{1, 1}, {1, 2}, {255, 0}} {
		m := boottest.NewMedium(env(true, flags[0], good...), env(true, flags[1], good...))
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Invalidate(t.Context(), "B"); err != nil {
			t.Fatal(err)
		}
		for lost := range 2 {
			areas := m.Snapshot()
			areas[lost][100] ^= 1
			for range 12 {
				if got := script(load(areas, false)); got == "B" {
					t.Fatalf("flags %v: without copy %d U-Boot boots slot B", flags, lost+1)
				}
			}
		}
		writes := m.Writes()
		if err := b.Invalidate(t.Context(), "B"); err != nil || m.Writes() > writes {
			t.Errorf("flags %v: the second Invalidate = %v and wrote %d sectors", flags, err, m.Writes()-writes)
		}
	}
}

// A power cut may leave a torn copy beside one in which the slot is unbootable already: Invalidate repairs it.
func TestInvalidateBesideATornCopy(t *testing.T) {
	for _, dialect := range []uboot.Dialect{"", uboot.Bootcount} {
		valid := good
		if dialect == uboot.Bootcount {
			valid = []string{"active=A", "upgrade_available=0", "bootcount=0", "bootlimit=3", "altbootcmd=x"}
		}
		torn := env(true, 3, valid...)
		m := boottest.NewMedium(env(true, 2, valid...), torn)
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: dialect}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Invalidate(t.Context(), "B"); err != nil {
			t.Fatalf("dialect %q: %v", dialect, err)
		}
		cut := m.Snapshot()
		cut[0][200] ^= 1
		m = boottest.NewMedium(cut...)
		if b, err = uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: dialect}, "A"); err != nil {
			t.Fatal(err)
		}
		if err := b.Invalidate(t.Context(), "B"); err != nil {
			t.Errorf("dialect %q beside a torn copy: %v", dialect, err)
		}
		if areas := m.Snapshot(); !bytes.Equal(areas[0][5:], areas[1][5:]) {
			t.Errorf("dialect %q: the torn copy was not rewritten", dialect)
		}
	}
}

// RequestRecovery sets the variable once and changes no slot.
func TestRequestRecovery(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, good...), env(true, 1, good...))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}}, "A")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		writes := m.Writes()
		if err := b.RequestRecovery(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n == 1 && m.Writes() > writes {
			t.Errorf("the second request wrote %d sectors", m.Writes()-writes)
		}
	}
	if u := load(m.Snapshot(), false); u.get(uboot.Recovery) != "1" || u.get("BOOT_ORDER") != "A B" {
		t.Errorf("the environment is %q", u.vars)
	}
}

// A bootlimit of 0 is none: State predicts no fall back and says so.
func TestNoBootlimit(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, "altbootcmd=x", "active=B", "upgrade_available=1", "bootcount=7"), make([]byte, size))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "A")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.State(t.Context())
	never := func(f boot.Finding) bool {
		return f.Severity == boot.Failure && strings.Contains(f.Evidence, "never falls back")
	}
	if err != nil || !slices.Equal(st.Boots, []string{"B", "B", "B"}) || !slices.ContainsFunc(st.Findings, never) {
		t.Errorf("State = %+v, %v; want slot B for ever, and a failure", st, err)
	}
}

// dying is an area that becomes unreadable after it was written and read a number of times.
type dying struct {
	boot.Area
	left, reads int
}

func (d *dying) WriteAt(p []byte, off int64) (int, error) {
	d.left = d.reads
	return d.Area.WriteAt(p, off)
}

func (d *dying) ReadBackAt(p []byte, off int64) (int, error) {
	if d.left--; d.left == -1 {
		d.left = 0
		return 0, boottest.ErrInjected
	}
	return d.Area.ReadBackAt(p, off)
}

// A copy that becomes unreadable right after Invalidate wrote it is not overwritten with the older one.
func TestInvalidateOnDyingMedium(t *testing.T) {
	for reads := range 4 { // the read-back, and three loads
		m := boottest.NewMedium(env(true, 1, good...), env(true, 1, good...))
		areas := m.Areas()
		areas[1] = &dying{areas[1], 1 << 20, reads}
		b, err := open(areas, "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Invalidate(t.Context(), "B"); !errors.Is(err, boot.ErrState) {
			t.Errorf("unreadable after %d reads: Invalidate = %v; want ErrState", reads, err)
		}
		if u := load(m.Snapshot(), false); u.get("BOOT_ORDER") != "A" {
			t.Errorf("unreadable after %d reads: the environment is %q", reads, u.vars)
		}
	}
}

// Boot scripts have defaults for variables that are not set, so a slot that is marked bad has its own.
func TestBadIsExplicit(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, "x=1"), env(true, 0, "x=1"))
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || !strings.Contains(fmt.Sprint(st.Findings), "BOOT_ORDER is not set") {
		t.Errorf("State = %+v, %v; want a finding", st, err)
	}
	if err := b.MarkBad(t.Context(), "B"); err != nil || load(m.Snapshot(), false).get("BOOT_B_LEFT") != "0" {
		t.Errorf("MarkBad = %v, %q; want BOOT_B_LEFT=0", err, m.Snapshot())
	}
}

// flaky is an area whose first read fails.
type flaky struct {
	boot.Area
	failed *bool
}

func (f flaky) ReadBackAt(p []byte, off int64) (int, error) {
	if !*f.failed {
		*f.failed = true
		return 0, unix.EIO
	}
	return f.Area.ReadBackAt(p, off)
}

// TestReadIsTriedAgain: a copy that cannot be read once is no reason to take the older one.
func TestReadIsTriedAgain(t *testing.T) {
	newer := env(true, 2, "BOOT_ORDER=B A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3")
	m := boottest.NewMedium(env(true, 1, good...), newer)
	areas := m.Areas()
	areas[1] = flaky{areas[1], new(bool)}
	b, err := uboot.New(uboot.Options{Areas: areas, Slots: []string{"A", "B"}}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
		t.Errorf("State = %+v, %v; want B next", st, err)
	}
}
