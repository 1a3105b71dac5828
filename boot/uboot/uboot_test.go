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
	"testing/iotest"

	"golang.org/x/sys/unix"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/scheme"
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

// TestBadActiveSlot: U-Boot boots a bad slot that is active while it has tries, or is not counted.
func TestBadActiveSlot(t *testing.T) {
	for vars, next := range map[string]string{"available=1 bootcount=1": "B", "available=0 bootcount=4": "B", "available=1 bootcount=3": ""} {
		text := "altbootcmd=x active=B bootlimit=3 upgrade_" + vars
		m := boottest.NewMedium(env(true, 1, append(strings.Fields(text), "updater_bad=A B")...), make([]byte, size))
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != next {
			t.Errorf("%s: State = %+v, %v; want slot %q", vars, st, err, next)
		}
	}
}

// TestBootcountNothingBootable: a recovery can install into the active slot when no slot boots.
func TestBootcountNothingBootable(t *testing.T) {
	spent := []string{"altbootcmd=run recovery", "active=B", "upgrade_available=1", "bootcount=4", "bootlimit=3", "updater_bad=A"}
	m := boottest.NewMedium(env(true, 1, spent...), env(true, 1, spent...))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "" {
		t.Fatalf("State = %+v, %v; want no slot", st, err)
	}
	if err := b.Invalidate(t.Context(), "B"); err != nil {
		t.Errorf("Invalidate with nothing to lose = %v", err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "" || st.Slots[1].Priority != 0 {
		t.Errorf("after Invalidate State = %+v, %v; want slot B outside the boot order", st, err)
	}
	if err := b.Activate(t.Context(), "B", 2); err != nil {
		t.Fatal(err)
	}
	areas := m.Snapshot()
	for range 6 {
		if got := bootcount(load(areas, false)); got != "B" {
			t.Fatalf("after Activate U-Boot boots %q; want B, which has no fallback", got)
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
	lost := boottest.NewMedium(make([]byte, size), make([]byte, size))
	counted, err := uboot.New(uboot.Options{Areas: lost.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "A")
	if err != nil {
		t.Fatal(err)
	}
	_, err = counted.State(t.Context())
	for name, err := range map[string]error{
		"State": err, "Repair": counted.Repair(t.Context()), "RequestRecovery": boot.RequestRecovery(t.Context(), counted),
	} {
		if !errors.Is(err, boot.ErrState) || lost.Writes() > 0 {
			t.Errorf("%s in the dialect bootcount = %v, %d writes; want ErrState and none", name, err, lost.Writes())
		}
	}
	for _, c := range []struct {
		sizes []int
		ok    bool
	}{{nil, false}, {[]int{64, 64, 64}, false}, {[]int{64, 65}, false}, {[]int{1 << 20}, true}, {[]int{1<<20 + 1}, false}} {
		var areas [][]byte
		for _, n := range c.sizes {
			areas = append(areas, make([]byte, n))
		}
		if _, err := open(boottest.NewMedium(areas...).Areas(), "A"); (err == nil) != c.ok || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("New with copies of %v bytes = %v; want success: %v", c.sizes, err, c.ok)
		}
	}
	for _, r := range "\x01\x1f\x7f\u00e4\\\"'$;&|<>(){}#`*?" {
		b, err := open(boottest.NewMedium(env(false, 0, "BOOT_ORDER=A"+string(r))).Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) {
			t.Errorf("BOOT_ORDER with %q: State = %v; want ErrState", r, err)
		}
	}
	b, err := open(boottest.NewMedium(env(false, 0, "BOOT_ORDER=A~ A")).Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); err != nil {
		t.Errorf("BOOT_ORDER with ~, the last printable character: State = %v", err)
	}
}

// sealed returns data with its checksum, as a single copy or with a flag as a redundant one.
func sealed(redundant bool, data string) []byte {
	raw := make([]byte, 4, 5+len(data))
	if redundant {
		raw = append(raw, 1)
	}
	raw = append(raw, data...)
	binary.LittleEndian.PutUint32(raw, crc32.ChecksumIEEE(raw[len(raw)-len(data):]))
	return raw
}

// TestSmallEnvironments: an environment has room for an entry and its end, and ends inside of its area.
func TestSmallEnvironments(t *testing.T) {
	for _, redundant := range []bool{false, true} {
		for data, ok := range map[string]bool{
			"#c=d\x00BOOT_ORDER=A\x00\x00": true, "": false, "\x00": false, "\x00\x00": true, "ab": false,
			"a\x00": true, "BOOT_ORDER=A\x00\x00": true, "BOOT_ORDER=A\x00": true, "BOOT_ORDER=A": false,
		} {
			areas := [][]byte{sealed(redundant, data)}
			if redundant {
				areas = append(areas, make([]byte, len(areas[0])))
			}
			b, err := open(boottest.NewMedium(areas...).Areas(), "A")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.State(t.Context()); (err == nil) != ok || err != nil && !errors.Is(err, boot.ErrState) {
				t.Errorf("%q, redundant %v: State = %v; want success: %v", data, redundant, err, ok)
			}
		}
	}
	const full = "BOOT_ORDER=A\x00BOOT_A_LEFT=3\x00BOOT_B_LEFT=0\x00\x00"
	for _, c := range []struct{ copies, spare int }{{1, 0}, {1, -1}, {2, 0}, {2, -1}} {
		text := "w=1\x00x=y\x00\x00" + strings.Repeat("\xff", len(full)-1+c.spare)
		m := boottest.NewMedium([][]byte{sealed(c.copies == 2, text), sealed(true, text)}[:c.copies]...)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		ok := c.spare == 0
		if err := b.MarkGood(t.Context(), "A"); (err == nil) != ok || err != nil && (m.Writes() > 0 || !strings.Contains(err.Error(), "has room for")) {
			t.Errorf("MarkGood in an environment with %d bytes to spare = %v, %d writes; want success: %v", c.spare, err, m.Writes(), ok)
		}
		got := string(m.Snapshot()[c.copies-1][3+c.copies:])
		if ok && !strings.HasSuffix(got, "x=y\x00\x00") || ok && !strings.HasPrefix(got, "BOOT_") {
			t.Errorf("the environment is %q; want the new variables first", got)
		}
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
		{"a 1_0 10\n", "not a number"},
		{"a 0b1 10\n", "not a number"},
		{"a 09 10\n", "not a number"},
		{"a --1 10\n", "not a number"},
		{"a 0 0\n", "size of a is 0"},
		{"a 0 100000\n", ""},
		{"a 0 100001\n", "size of a is 1048577"},
		{"a 0 10 1 2 0 0\n", "7 fields"},
		{"a 0 10 1 2 0\n", ""},
		{"a 0 10 1 100000\n", ""},
		{"a 0 10 1 100001\n", "1048577 sectors"},
		{"a 0 10 1 1 08\n", "not a number"},
		{"a 0 10\na 0x10 10\n", ""},
		{"a 0x10 10\na 0 10\n", ""},
		{"a 8 10\na 0 10\n", "same bytes"},
		{"a -16 10\na -8 10\n", "same bytes"},
		{"a 0 10\na -8 10\n", ""},
		{"a -8 10\na 0 10\n", ""},
		{"a 0 10\n" + strings.Repeat("#", 64<<10-7), ""},
		{"a 0 10\n" + strings.Repeat("#", 64<<10-6), "has more than 65536 bytes"},
		{"---\n" + yaml, ""},
		{"# the copies\n\n" + strings.Replace(yaml, "\n", " # one\n\n# two\n", 1), ""},
		{"u:\n  size\n", "expected key: value"},
		{"u:\n  size: 0x10\n  devices:\n    path: a\n", "unexpected key"},
		{yaml + "---\n", ""},
		{"u:\n\tsize: 1\n", "expected key: value"},
		{"u:\n  - x: 1\n", "unexpected key"},
		{"u:\n  size: x\n", `line 2: "x" is not a number`},
		{"u:\nv: 1\n", "expected one namespace"},
		{"u: x:\n  size: 1\n", "expected one namespace"},
		{"  size:\n", "expected a namespace"},
		{yaml + "  lockfile: x\n", "unexpected key"},
		{yaml + "  size: 1\n", "unexpected key"},
		{yaml + "    - path: b\n      offset: x\n", "not a number"},
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
	if _, err := uboot.ParseFWEnvConfig(iotest.ErrReader(unix.EIO)); !errors.Is(err, unix.EIO) {
		t.Errorf("ParseFWEnvConfig of a file that cannot be read = %v; want EIO", err)
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
	const text = "# made by make u-boot-initial-env\n\nbootcmd=run slots; reset\r\nBOOT_ORDER=A B\nbaudrate=115200\nempty=\npath=a\\b\n"
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
			for i := range n {
				raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("env", i)))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(raw, []byte(`path=a\\b`+"\x00")) || n == 2 && raw[4] != byte(1-i) {
					t.Errorf("copy %d of %d is %.100q; want the flag %d", i+1, n, raw, 1-i)
				}
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
	if err := uboot.Create([]boot.Area{area, area, area}, text); !errors.Is(err, boot.ErrState) {
		t.Errorf("Create in three areas = %v; want ErrState", err)
	}
	for text, want := range map[string]string{
		"": "no variables", "a=\x00": "expected name=value", "a=1\na=2": "twice", "=1": "expected name=value", "text": "expected name=value",
		" =1":                            "without a name",
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

// U-Boot uses the last of repeated entries: State reports them, a change applies to the last, and Repair removes the others.
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

// No error advises discarding an environment whose checksum is valid.
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
	b, err := open(boottest.NewMedium(make([]byte, size), make([]byte, size)).Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "env default") {
		t.Errorf("nothing is valid: State = %v; want ErrState with env default", err)
	}
	for name, areas := range map[string][][]byte{
		"one of two":  {env(true, 1, good...)},
		"two of one":  {env(false, 0, good...), env(false, 0, good...)},
		"smallest":    {append(sealed(false, "a=b\x00\x00"+strings.Repeat("x", 1<<10-4-5)), make([]byte, 1<<10)...)},
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

// A slot whose last try was spent is not tried forever: a bootlimit of 0 would be no limit.
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

// RequestRecovery sets the variable once and changes no slot, also in an environment without variables.
func TestRequestRecovery(t *testing.T) {
	empty := boottest.NewMedium(env(true, 1, ""), env(true, 1, ""))
	if b, err := open(empty.Areas(), "A"); err != nil || boot.RequestRecovery(t.Context(), b) != nil {
		t.Errorf("a request in an empty environment fails: %v", err)
	}
	if u := load(empty.Snapshot(), false); !slices.Equal(u.vars, []string{"recovery=1"}) {
		t.Errorf("an empty environment becomes %q", u.vars)
	}
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

// A bootlimit of 0 is no limit: State predicts no fallback and reports that.
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
		d.left = 0 // forever
		return 0, boottest.ErrInjected
	}
	return d.Area.ReadBackAt(p, off)
}

// A copy that becomes unreadable right after a change wrote it is an error, and it is not overwritten with the older one.
func TestDyingMedium(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(b *scheme.Backend) error
		reads int // the read-back, and the loads
		want  string
	}{
		"Invalidate":      {func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "B") }, 4, "BOOT_ORDER=A"},
		"MarkGood":        {func(b *scheme.Backend) error { return b.MarkGood(t.Context(), "A") }, 2, "BOOT_A_LEFT=3"},
		"RequestRecovery": {func(b *scheme.Backend) error { return b.RequestRecovery(t.Context()) }, 2, "recovery=1"},
	} {
		for reads := range c.reads {
			vars := []string{"BOOT_ORDER=A B", "BOOT_A_LEFT=2", "BOOT_B_LEFT=3"}
			m := boottest.NewMedium(env(true, 1, vars...), env(true, 1, vars...))
			areas := m.Areas()
			areas[1] = &dying{areas[1], 1 << 20, reads}
			b, err := uboot.New(uboot.Options{Areas: areas, Slots: []string{"A", "B"}}, "A")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(b); !errors.Is(err, boot.ErrState) {
				t.Errorf("unreadable after %d reads: %s = %v; want ErrState", reads, name, err)
			}
			if u := load(m.Snapshot(), false); !slices.Contains(u.vars, c.want) {
				t.Errorf("unreadable after %d reads: after %s the environment is %q", reads, name, u.vars)
			}
		}
	}
}

// dead is an area of a medium that can no longer be read after a number of reads.
type dead struct {
	boot.Area
	left *int
}

func (d dead) ReadBackAt(p []byte, off int64) (int, error) {
	if *d.left--; *d.left < 0 {
		return 0, unix.EIO
	}
	return d.Area.ReadBackAt(p, off)
}

// TestDeadMedium: a medium that dies during a change is an error, whenever it does.
func TestDeadMedium(t *testing.T) {
	for name, do := range map[string]func(b *scheme.Backend) error{
		"Invalidate":      func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "B") },
		"RequestRecovery": func(b *scheme.Backend) error { return b.RequestRecovery(t.Context()) },
	} {
		for copies := 1; copies <= 2; copies++ {
			for reads, left := 0, -1; left < 0; reads++ {
				left = reads
				areas := boottest.NewMedium([][]byte{env(copies == 2, 1, good...), env(true, 1, good...)}[:copies]...).Areas()
				for i, a := range areas {
					areas[i] = dead{a, &left}
				}
				b, err := uboot.New(uboot.Options{Areas: areas, Slots: []string{"A", "B"}}, "A")
				if err != nil {
					t.Fatal(err)
				}
				err = do(b)
				oneRead := copies == 2 && left >= -2 // a copy is read twice, and the other one may serve
				if left < 0 && !oneRead && !errors.Is(err, boot.ErrState) || left >= 0 && err != nil {
					t.Errorf("%d copies, dead after %d reads: %s = %v; want ErrState: %v", copies, reads, name, err, left < 0)
				}
			}
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
	m = boottest.NewMedium(env(true, 1, "BOOT_ORDER=A B", "BOOT_A_LEFT=3"), env(true, 0, "x=1"))
	if b, err = open(m.Areas(), "A"); err != nil {
		t.Fatal(err)
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil || m.Writes() > 0 {
		t.Errorf("MarkGood = %v and wrote %d sectors; want none: the default of slot B counts", err, m.Writes())
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

// TestReadIsTriedAgain: a copy that cannot be read once is no reason to use the older one.
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

// TestCreateFails: every failure while a new environment is written is an error.
func TestCreateFails(t *testing.T) {
	for n := 1; ; n++ {
		m := boottest.NewMedium(make([]byte, size), make([]byte, size))
		m.FailAt = n
		err := uboot.Create(m.Areas(), "BOOT_ORDER=A B\n")
		if m.Operations() < n {
			if err != nil {
				t.Error(err)
			}
			return
		}
		if u := load(m.Snapshot(), false); err == nil && (u.use != 0 || u.get("BOOT_ORDER") != "A B") || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("operation %d failed: Create = %v, and the environment is %+v", n, err, u)
		}
	}
}

// TestBootcountVariables: the variables of boot counting after each change; a good slot needs no count.
func TestBootcountVariables(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, "active=A", "altbootcmd=x"), make([]byte, size))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil || m.Writes() > 0 {
		t.Errorf("MarkGood = %v and wrote %d sectors; want none", err, m.Writes())
	}
	m = boottest.NewMedium(env(true, 1, counted...), env(true, 1, counted...))
	for _, c := range []struct {
		name, booted string
		do           func(b *scheme.Backend) error
		want         string // active, upgrade_available, bootcount, bootlimit, updater_bad
	}{
		{"activate B", "A", func(b *scheme.Backend) error { return b.Activate(t.Context(), "B", 2) }, "B 1 0 2 "},
		{"spend a try", "A", func(b *scheme.Backend) error { return b.SpendTry(t.Context(), "B") }, "B 1 1 2 "},
		{"mark B good", "B", func(b *scheme.Backend) error { return b.MarkGood(t.Context(), "B") }, "B 0 0 2 "},
		{"invalidate A", "B", func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "A") }, "B 0 0 2 A"},
		{"activate A", "B", func(b *scheme.Backend) error { return b.Activate(t.Context(), "A", 1) }, "A 1 0 1 "},
		{"activate A with more", "B", func(b *scheme.Backend) error { return b.Activate(t.Context(), "A", 5) }, "A 1 0 5 "},
		{"spend a try", "B", func(b *scheme.Backend) error { return b.SpendTry(t.Context(), "A") }, "A 1 1 5 "},
		{"activate A with less", "B", func(b *scheme.Backend) error { return b.Activate(t.Context(), "A", 2) }, "A 1 3 5 "},
		{"mark B bad", "B", func(b *scheme.Backend) error { return b.MarkBad(t.Context(), "B") }, "A 0 0 5 B"},
		{"mark A good", "A", func(b *scheme.Backend) error { return b.MarkGood(t.Context(), "A") }, "A 0 0 5 B"},
	} {
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, c.booted)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(b); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		u := load(m.Snapshot(), false)
		got := strings.Join([]string{u.get("active"), u.get("upgrade_available"), u.get("bootcount"), u.get("bootlimit"), u.get("updater_bad")}, " ")
		if got != c.want {
			t.Errorf("after %s the variables are %q; want %q", c.name, got, c.want)
		}
	}
}

// TestFindings: each problem of an environment has its finding, and a sound one has none.
func TestFindings(t *testing.T) {
	replaced := func(vars []string, old, now string) []string {
		return strings.Split(strings.Replace(strings.Join(vars, "\n"), old, now, 1), "\n")
	}
	for _, c := range []struct {
		name    string
		dialect uboot.Dialect
		vars    []string
		copies  int
		want    string
	}{
		{"sound", uboot.RAUC, good, 2, ""},
		{"one copy", uboot.RAUC, good, 1, "has one copy"},
		{"unknown slot", uboot.RAUC, replaced(good, "=A B", "=A B C"), 2, `BOOT_ORDER lists "C"`},
		{"no order", uboot.RAUC, replaced(good, "BOOT_ORDER", "other"), 2, "BOOT_ORDER is not set"},
		{"two digits", uboot.RAUC, replaced(good, "A_LEFT=3", "A_LEFT=10"), 2, "BOOT_A_LEFT is 10; expected a single digit"},
		{"repeated", uboot.RAUC, append(slices.Clone(good), "BOOT_ORDER=A B"), 2, "sets BOOT_ORDER 2 times"},
		{"sound", uboot.Bootcount, counted, 2, ""},
		{"one copy", uboot.Bootcount, counted, 1, "has one copy"},
		{"no altbootcmd", uboot.Bootcount, counted[1:], 2, "altbootcmd is not set"},
		{"unknown slot", uboot.Bootcount, replaced(counted, "active=A", "active=C"), 2, `active is "C"`},
		{"no limit", uboot.Bootcount, replaced(counted, "bootlimit=3", "bootlimit=0"), 2, ""},
		{"no limit on trial", uboot.Bootcount, replaced(replaced(counted, "bootlimit=3", "bootlimit=0"), "available=0", "available=1"), 2,
			"bootlimit is not set while"},
		{"repeated", uboot.Bootcount, append(slices.Clone(counted), "updater_bad=A", "updater_bad=B"), 2, "sets updater_bad 2 times"},
	} {
		areas := [][]byte{env(c.copies == 2, 1, c.vars...), env(true, 1, c.vars...)}[:c.copies]
		b, err := uboot.New(uboot.Options{Areas: boottest.NewMedium(areas...).Areas(), Slots: []string{"A", "B"}, Dialect: c.dialect}, "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil || b.Caps().SwitchAtomic != (c.copies == 2) {
			t.Fatalf("%s, %s: State = %v, Caps = %+v", c.name, c.dialect, err, b.Caps())
		}
		var found []string
		for _, f := range st.Findings[:len(st.Findings)-len(boot.Disagreements(st))] {
			found = append(found, f.Evidence)
		}
		if got := strings.Join(found, "; "); !strings.Contains(got, c.want) || len(found) > min(1, len(c.want)) {
			t.Errorf("%s, %s: State finds %q; want %q", c.name, c.dialect, got, c.want)
		}
	}
}

// TestTries: the number of tries is the smaller one of those that scripts read, and a good slot has those that are configured.
func TestTries(t *testing.T) {
	for _, c := range []struct {
		value     string
		goodTries int
		left      int
		good, ok  bool
	}{
		{"3", 0, 3, true, true}, {"2", 0, 2, false, true}, {"2", 2, 2, true, true}, {"4", 5, 4, false, true}, {"10", 0, 10, true, true},
		{"12345", 0, 1234, true, true}, {"3x", 0, 3, true, true}, {"", 0, 0, false, true}, {"0x3", 0, 0, false, false}, {"a", 0, 0, false, false},
	} {
		m := boottest.NewMedium(env(true, 1, "BOOT_ORDER=A B", "BOOT_A_LEFT="+c.value, "BOOT_B_LEFT=1"), make([]byte, size))
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, GoodTries: c.goodTries}, "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if c.ok != (err == nil) || c.ok && (st.Slots[0].TriesLeft != c.left || st.Slots[0].Good != c.good) {
			t.Errorf("BOOT_A_LEFT=%s: State = %+v, %v; want %d tries, good: %v", c.value, st, err, c.left, c.good)
		}
	}
	for vars, want := range map[string]string{
		"upgrade_available=1 bootcount=9 bootlimit=3": "{B false false 0 2}",
		"upgrade_available=1 bootcount=1 bootlimit=3": "{B true false 2 2}",
	} {
		m := boottest.NewMedium(env(true, 1, append(strings.Fields(vars), "active=B", "altbootcmd=x")...), make([]byte, size))
		b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Dialect: uboot.Bootcount}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || fmt.Sprint(st.Slots[1]) != want {
			t.Errorf("%s: State = %+v, %v; want %s", vars, st, err, want)
		}
	}
	spent := env(true, 1, "BOOT_ORDER=A B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=0")
	b, err := open(boottest.NewMedium(spent, spent).Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || !slices.Equal(st.Boots, []string{"", "A", "A"}) {
		t.Errorf("State = %+v, %v; want that the script gives 3 tries back", st, err)
	}
}

// TestStaleFlag: a power cut behind the new copy leaves both flagged as in use; Repair clears the flag of the older one alone.
func TestStaleFlag(t *testing.T) {
	m := boottest.NewMedium(env(true, 1, good...), env(true, 1, "BOOT_ORDER=B"))
	b, err := uboot.New(uboot.Options{Areas: m.Areas(), Slots: []string{"A", "B"}, Flags: uboot.Boolean}, "A")
	if err != nil {
		t.Fatal(err)
	}
	stale := func(f boot.Finding) bool {
		return f.Remedy == boot.RemedyRepair && strings.Contains(f.Evidence, "flagged as in use; U-Boot uses copy 1")
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || !slices.ContainsFunc(st.Findings, stale) {
		t.Errorf("State = %+v, %v; want slot A and both flags", st, err)
	}
	if err := b.Repair(t.Context()); err != nil || m.Writes() != 1 {
		t.Errorf("Repair = %v and wrote %d sectors; want 1", err, m.Writes())
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || slices.ContainsFunc(st.Findings, stale) || m.Snapshot()[1][4] != 0 {
		t.Errorf("after Repair State = %+v, %v", st, err)
	}
}

// TestRecognize: an environment is found at any usual size, and nothing else is.
func TestRecognize(t *testing.T) {
	long := strings.Repeat("n", 64)
	for _, c := range []struct {
		name  string
		first string
		size  int // of the environment
		rest  int // bytes behind it
		ok    bool
	}{
		{"one KiB", "a=b", 1 << 10, 4096, true}, {"the largest", "a=b", uboot.MaxRecognized, 4096, true},
		{"too large", "a=b", 2 * uboot.MaxRecognized, 0, false},
		{"all of an odd size", "a=b", 3000, 0, true}, {"an odd size", "a=b", 3000, 10, false},
		{"small", "a=b", 270, 0, true}, {"too small", "a=b", 260, 0, false}, {"a byte more", "a=b", 261, 0, false},
		{"long name", long + "=b", 1 << 10, 0, true}, {"tilde", "a~c=b", 1 << 10, 0, true}, {"longer name", long + "n=b", 1 << 10, 0, false}, {"no name", "=b", 1 << 10, 0, false},
		{"blank", "a c=b", 1 << 10, 0, false}, {"not ASCII", "\x7f=b", 1 << 10, 0, false}, {"no value", "abc", 1 << 10, 0, false},
	} {
		for _, redundant := range []bool{false, true} {
			text := c.first + "\x00c=d\x00\x00"
			head := 4
			if redundant {
				head = 5
			}
			data := append(sealed(redundant, text+strings.Repeat("\xff", c.size-head-len(text))), make([]byte, c.rest)...)
			got, ok := uboot.Recognize(data)
			if want := (uboot.Found{Size: c.size, Redundant: redundant, Text: c.first + "\nc=d"}); ok != c.ok || ok && got != want {
				t.Errorf("%s, redundant %v: Recognize = %+v, %v; want %+v, %v", c.name, redundant, got, ok, want, c.ok)
			}
		}
	}
}
