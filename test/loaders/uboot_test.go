//go:build vm

package loaders

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/uboot"
)

const (
	envSize = 0x4000
	env1    = 0x100000
	env2    = 0x110000
)

// ubootRig is an SD card with a redundant environment, and the U-Boot that reads it.
type ubootRig struct {
	dir, rom, sd string
	dialect      uboot.Dialect
}

func newUBoot(t *testing.T, dialect uboot.Dialect, env string) *ubootRig {
	t.Helper()
	need(t, qemu, "mkenvimage", "fw_printenv")
	dir := filepath.Join(workDir(t), "uboot")
	script, err := filepath.Abs("../../scripts/uboot-rom.sh")
	must(t, err)
	if out, err := exec.Command(script, dir).CombinedOutput(); err != nil {
		t.Skipf("U-Boot could not be built from Debian's source package: %v: %s", err, out[max(0, len(out)-500):])
	}
	r := &ubootRig{dir: t.TempDir(), rom: filepath.Join(dir, "u-boot.rom"), dialect: dialect}
	r.sd = filepath.Join(r.dir, "sd.img")
	must(t, os.WriteFile(filepath.Join(r.dir, "env"), []byte(env), 0o600))
	sh(t, r.dir, `truncate -s 4M sd.img; mkenvimage -r -s 0x4000 -o env.bin env
		for at in 256 272; do dd if=env.bin of=sd.img bs=4096 seek=$at conv=notrunc status=none; done
		printf 'sd.img 0x100000 0x4000\nsd.img 0x110000 0x4000\n' >fw_env.config`)
	return r
}

// environment is an example whose last step prints the slot instead of booting it.
func environment(t *testing.T, name, slot string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(example(t, name)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "ab_go=") {
			line = "ab_go=echo CHOICE ${" + slot + "}; reset\n"
		}
		if strings.HasPrefix(line, "ab_recovery=") {
			line = "ab_recovery=echo CHOICE recovery; reset\n"
		}
		out = append(out, line)
	}
	if slot == "slot" { // both slots are filled
		out = append(out, "BOOT_ORDER=A B\n", "BOOT_B_LEFT=3\n")
		out = slices.DeleteFunc(out, func(line string) bool { return line == "BOOT_ORDER=A\n" || line == "BOOT_B_LEFT=0\n" })
	}
	return strings.Join(append(out, "bootdelay=0\n"), "")
}

func (r *ubootRig) backend(t *testing.T, booted string) boot.Backend {
	t.Helper()
	f, err := os.OpenFile(r.sd, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	b, err := uboot.New(uboot.Options{
		Areas:   []boot.Area{&boottest.FileArea{F: f, Off: env1, Len: envSize}, &boottest.FileArea{F: f, Off: env2, Len: envSize}},
		Slots:   []string{"A", "B"},
		Dialect: r.dialect,
	}, booted)
	must(t, err)
	return b
}

func (r *ubootRig) args(card ...string) []string {
	return append([]string{"-bios", r.rom, "-device", "sdhci-pci"}, card...)
}

// boot runs U-Boot once: it must choose want.
func (r *ubootRig) boot(t *testing.T, want string) {
	t.Helper()
	got := boots(t, `CHOICE (\w*)`, r.args("-device", "sd-card,drive=c0", "-drive", "id=c0,if=none,format=raw,file="+r.sd)...)
	if got[1] != want {
		t.Errorf("U-Boot chose %q; want %s", got[1], want)
	}
}

// tool compares variables with those that fw_printenv reads.
func (r *ubootRig) tool(t *testing.T, want ...string) {
	t.Helper()
	got := strings.Split(run(t, r.dir, "fw_printenv", "-c", "fw_env.config"), "\n")
	for _, v := range want {
		if !slices.Contains(got, v) {
			t.Errorf("fw_printenv has no %s: %q", v, got)
		}
	}
}

func TestUBootRAUC(t *testing.T) {
	r := newUBoot(t, uboot.RAUC, environment(t, "uboot/rauc.env", "slot"))
	check(t, r.backend(t, ""), "fresh", "A A A")
	r.boot(t, "A")
	r.tool(t, "BOOT_A_LEFT=2")
	must(t, r.backend(t, "A").MarkGood(t.Context(), "A"))
	r.tool(t, "BOOT_A_LEFT=3")
	must(t, r.backend(t, "A").Invalidate(t.Context(), "B"))
	r.tool(t, "BOOT_ORDER=A", "BOOT_B_LEFT=0")
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.tool(t, "BOOT_ORDER=B A", "BOOT_B_LEFT=2")
	check(t, r.backend(t, "A"), "activated", "B B A")
	for _, want := range []string{"B", "B", "A"} {
		r.boot(t, want)
	}
	r.tool(t, "BOOT_A_LEFT=2", "BOOT_B_LEFT=0")
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.boot(t, "B")
	must(t, r.backend(t, "B").MarkGood(t.Context(), "B"))
	check(t, r.backend(t, "B"), "marked good", "B B B")
	r.boot(t, "B")
	must(t, r.backend(t, "B").MarkBad(t.Context(), "A"))
	r.tool(t, "BOOT_ORDER=B", "BOOT_A_LEFT=0")
}

func TestUBootBootcount(t *testing.T) {
	r := newUBoot(t, uboot.Bootcount, environment(t, "uboot/bootcount.env", "active"))
	check(t, r.backend(t, ""), "fresh", "A A A")
	before, err := os.ReadFile(r.sd)
	must(t, err)
	r.boot(t, "A")
	if after, err := os.ReadFile(r.sd); err != nil || !slices.Equal(before, after) {
		t.Errorf("a good boot wrote to the card (%v)", err)
	}
	must(t, r.backend(t, "A").Invalidate(t.Context(), "B"))
	r.tool(t, "active=A", "updater_bad=B")
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.tool(t, "active=B", "upgrade_available=1", "bootlimit=2", "bootcount=0")
	check(t, r.backend(t, "A"), "activated", "B B A")
	for _, want := range []string{"B", "B", "A", "A"} {
		r.boot(t, want)
	}
	r.tool(t, "active=A", "upgrade_available=0")
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 2))
	r.boot(t, "B")
	must(t, r.backend(t, "B").MarkGood(t.Context(), "B"))
	r.tool(t, "active=B", "upgrade_available=0", "bootcount=0")
	for range 3 {
		r.boot(t, "B")
	}
}

// TestUBootRecovery: recovery=1 boots the recovery once and changes no slot; without a recovery the slots are tried.
func TestUBootRecovery(t *testing.T) {
	for _, c := range []struct {
		dialect   uboot.Dialect
		env, slot string
	}{{uboot.RAUC, "uboot/rauc.env", "slot"}, {uboot.Bootcount, "uboot/bootcount.env", "active"}} {
		t.Run(string(c.dialect), func(t *testing.T) {
			text := environment(t, c.env, c.slot)
			r := newUBoot(t, c.dialect, text)
			r.boot(t, "A")
			must(t, boot.RequestRecovery(t.Context(), r.backend(t, "A")))
			r.tool(t, "recovery=1")
			r.boot(t, "recovery")
			r.tool(t, "recovery=0")
			r.boot(t, "A")
			r = newUBoot(t, c.dialect, strings.Replace(text, "echo CHOICE recovery; reset", "false", 1))
			must(t, boot.RequestRecovery(t.Context(), r.backend(t, "A")))
			r.boot(t, "A")
			r.tool(t, "recovery=0")
		})
	}
}

// TestUBootCopies: the flag byte wraps around, and a bad copy is skipped; U-Boot reads the copy that Repair restores.
func TestUBootCopies(t *testing.T) {
	r := newUBoot(t, uboot.RAUC, environment(t, "uboot/rauc.env", "slot"))
	set := func(off int64, p ...byte) {
		f, err := os.OpenFile(r.sd, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt(p, off)
		must(t, err)
	}
	set(env1+4, 255)
	set(env2+4, 254)
	must(t, r.backend(t, "A").Activate(t.Context(), "B", 3)) // flag 0, after 255
	r.boot(t, "B")                                           // U-Boot saves with flag 1
	r.tool(t, "BOOT_B_LEFT=2")
	check(t, r.backend(t, "B"), "after the wrap", "B B A")
	set(env1+100, 0xff) // the copy in use
	st, err := r.backend(t, "B").State(t.Context())
	if err != nil || len(st.Findings) == 0 || st.Findings[0].Remedy != boot.RemedyRepair {
		t.Errorf("with a bad copy State = %+v, %v; want a finding", st, err)
	}
	r.boot(t, "B") // from the other copy
	must(t, r.backend(t, "B").MarkGood(t.Context(), "B"))
	must(t, r.backend(t, "B").Repair(t.Context()))
	r.tool(t, "BOOT_B_LEFT=3")
	r.boot(t, "B")
}

// TestUBootPowerCuts: after every sector of an install, of U-Boot's own writes and of mark-good, U-Boot's environment is
// valid and a slot boots.
func TestUBootPowerCuts(t *testing.T) {
	r := newUBoot(t, uboot.RAUC, environment(t, "uboot/rauc.env", "slot"))
	states := 0
	whole := func(when string, may ...string) func(int) {
		return func(n int) {
			states++
			st, err := r.backend(t, "").State(t.Context())
			if err != nil || !slices.Contains(may, st.Next) {
				t.Fatalf("%s, cut after sector %d: %+v, %v; want one of %v", when, n, st, err, may)
			}
			out := run(t, r.dir, "fw_printenv", "-c", "fw_env.config", "-n", "BOOT_ORDER")
			if first, _, _ := strings.Cut(strings.TrimSpace(out), " "); first != "A" && first != "B" {
				t.Fatalf("%s, cut after sector %d: fw_printenv prints BOOT_ORDER=%q", when, n, out)
			}
		}
	}
	ours := func(when string, booted string, change func(b boot.Backend) error, may ...string) {
		t.Helper()
		base := r.sd + ".base"
		copyFile(t, r.sd, base)
		must(t, change(r.backend(t, booted)))
		after, err := os.ReadFile(r.sd)
		must(t, err)
		copyFile(t, base, r.sd)
		f, err := os.OpenFile(r.sd, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		for off := 0; off < len(after); off += 512 {
			now := make([]byte, 512)
			_, err := f.ReadAt(now, int64(off))
			must(t, err)
			if !slices.Equal(now, after[off:off+512]) {
				_, err := f.WriteAt(after[off:off+512], int64(off))
				must(t, err)
				whole(when, may...)(off / 512)
			}
		}
	}
	loader := func(want string, may ...string) {
		t.Helper()
		base, log := r.sd+".base", newLog(t, filepath.Join(r.dir, "log"))
		copyFile(t, r.sd, base)
		got := boots(t, `CHOICE (\w*)`, r.args(recorded("sd-card", r.sd, log)...)...)
		if got[1] != want {
			t.Errorf("U-Boot chose %q; want %s", got[1], want)
		}
		copyFile(t, base, r.sd)
		n := replay(t, r.sd, log, whole("U-Boot's saveenv", may...))
		if n == 0 {
			t.Error("U-Boot wrote nothing")
		}
		t.Logf("U-Boot wrote %d sectors", n)
	}
	loader("A", "A")
	ours("mark good A", "A", func(b boot.Backend) error { return b.MarkGood(t.Context(), "A") }, "A")
	ours("invalidate B", "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, "A")
	ours("activate B", "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 2) }, "A", "B")
	loader("B", "B")
	ours("mark good B", "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, "B")
	loader("B", "B")
	t.Logf("%d states", states)
}

// TestUBootFlags: U-Boot and the backend choose the same of two valid copies, for every kind of pair of flags.
func TestUBootFlags(t *testing.T) {
	r := newUBoot(t, uboot.RAUC, "bootdelay=0\nbootcmd=echo CHOICE ${BOOT_ORDER}; reset\nBOOT_ORDER=A\nBOOT_A_LEFT=1\nBOOT_B_LEFT=1\n")
	one, err := os.ReadFile(filepath.Join(r.dir, "env.bin"))
	must(t, err)
	sh(t, r.dir, `sed -i s/BOOT_ORDER=A/BOOT_ORDER=B/ env; mkenvimage -r -s 0x4000 -o env2.bin env`)
	two, err := os.ReadFile(filepath.Join(r.dir, "env2.bin"))
	must(t, err)
	for _, flags := range [][2]byte{{255, 0}, {0, 255}, {254, 0}, {5, 5}, {2, 1}, {0x7f, 0x80}} {
		f, err := os.OpenFile(r.sd, os.O_RDWR, 0)
		must(t, err)
		one[4], two[4] = flags[0], flags[1]
		_, err = f.WriteAt(one, env1)
		must(t, err)
		_, err = f.WriteAt(two, env2)
		must(t, err)
		f.Close()
		st, err := r.backend(t, "").State(t.Context())
		must(t, err)
		t.Run(fmt.Sprintf("%02x", flags), func(t *testing.T) { r.boot(t, st.Next) })
	}
}
