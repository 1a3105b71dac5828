package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// emptyDev gives the machine a /dev of its own.
func (m *machine) emptyDev() {
	m.t.Helper()
	mountOver(m.t, "tmpfs", "/dev")
	if err := unix.Mknod("/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		m.t.Fatal(err)
	}
}

// file makes a file in the empty /dev.
func (m *machine) file(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// TestConsole: text goes to every console that can be opened, keys come from each of them, at once and without echo.
func TestConsole(t *testing.T) {
	m := newMachine(t)
	m.emptyDev()
	if err := os.Mkdir("/dev/pts", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		t.Skipf("devpts: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/dev/pts", unix.MNT_DETACH) })
	person, err := os.OpenFile("/dev/pts/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	m.file("/dev/tty1", "") // a screen
	active := m.write("active", "tty1 ttyS9 pts/0\n")
	if _, err := os.Stat("/sys/class/tty/console/active"); err != nil {
		t.Skip(err)
	}
	mountOver(t, active, "/sys/class/tty/console/active")
	c := OpenConsole(os.Stderr)
	if len(c.lines) != 2 || !c.lines[0].keys.screen || c.lines[1].keys.screen {
		t.Fatalf("the consoles are %+v; want a screen and a line", c.lines)
	}
	if n, err := c.Write([]byte("hello\n")); n != 6 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	took := -1
	c.show(threeThings(&took))
	if _, err := person.Write([]byte("2\r")); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if do, _ := c.pressed(); do != nil {
			do()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took != 1 {
		t.Errorf("the line has chosen %d", took)
	}
	buf := make([]byte, 4096)
	n, err := person.Read(buf)
	if text := string(buf[:n]); err != nil || !strings.HasPrefix(text, "hello\r\n") || !strings.Contains(text, "2  two") || strings.Contains(text, "2\r\n2") {
		t.Errorf("the line shows %q, %v", text, err)
	}
	if screen, err := os.ReadFile("/dev/tty1"); err != nil || !strings.Contains(string(screen), "\x1b[7mone") {
		t.Errorf("the screen shows %q, %v", screen, err)
	}
	before, _ := os.Stat("/dev/tty1")
	c.refresh()
	if after, err := os.Stat("/dev/tty1"); err != nil || after.Size() == before.Size() {
		t.Errorf("the screen was not drawn again: %v", err)
	}
	var fallback bytes.Buffer
	mountOver(t, m.write("none", "ttyS9\n"), "/sys/class/tty/console/active")
	fmt.Fprint(OpenConsole(&fallback), "hello")
	if fallback.String() != "hello" {
		t.Errorf("without a console %q was written", fallback.String())
	}
}

// TestKernelLog: lines go to the console and, with a priority, to the kernel log, from which the time of the hand-over is known.
func TestKernelLog(t *testing.T) {
	m := newMachine(t)
	m.emptyDev()
	if _, err := os.Stat("/proc/sys/kernel/printk_devkmsg"); err == nil {
		mountOver(t, m.write("devkmsg", ""), "/proc/sys/kernel/printk_devkmsg")
	}
	var console bytes.Buffer
	fmt.Fprint(OpenKernelLog(&console), "without a kernel log\n")
	m.file("/dev/kmsg", "")
	l := OpenKernelLog(&console)
	for _, s := range []string{"a line\nand a", " half\n\n", strings.Repeat("x", 2000) + "\n"} {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	got, err := os.ReadFile("/dev/kmsg")
	x := strings.Repeat("x", maxLine)
	if want := "<6>a line<6>and a half<6>" + x + "<6>" + x + "<6>" + x[:200]; err != nil || string(got) != want {
		t.Errorf("the kernel log has %q, %v; want %q", got, err, want)
	}
	if !strings.HasPrefix(console.String(), "without a kernel log\na line\nand a half\n\nxxx") {
		t.Errorf("the console shows %q", console.String())
	}
	if _, err := (&KernelLog{console: failing{}}).Write([]byte("x\n")); err == nil {
		t.Error("the error of the console is lost")
	}
	for record, want := range map[string]string{
		"": "", "6,512,0,-;Run /init as init process": " s after the kernel handed over", "6,512,x,-;Run /init as init process": "",
	} {
		m.file("/dev/kmsg", record)
		if got := sinceHandOver(); !strings.HasSuffix(got, want) || (want == "") != (got == "") {
			t.Errorf("after %q the hand-over is %q; want %q", record, got, want)
		}
	}
	if peakMemory() == "unknown" || uptime() == "an unknown time" {
		t.Errorf("memory %s, time %s", peakMemory(), uptime())
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, unix.EIO }

// TestWatchdogNode: a watchdog that cannot be armed is reported and ends nothing; a missing one is waited for.
func TestWatchdogNode(t *testing.T) {
	m := newMachine(t)
	m.emptyDev()
	log := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		KeepWatchdog(func() bool { return true }, func(format string, a ...any) { log <- fmt.Sprintf(format, a...) })
	}()
	time.Sleep(100 * time.Millisecond) // a driver that comes late
	m.file(watchdogNode, "")
	select {
	case got := <-log:
		if !strings.HasPrefix(got, "arming the hardware watchdog: feeding the watchdog: ") {
			t.Errorf("the log is %q", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("the watchdog was not noticed")
	}
	<-done
}

// TestTriggerNodes: nodes that are no keyboard and no GPIO chip are passed over.
func TestTriggerNodes(t *testing.T) {
	m := newMachine(t)
	m.emptyDev()
	m.file("/dev/input/event0", "")
	if keyDown(1) {
		t.Error("a file holds a key down")
	}
	if _, err := (GPIO{Chip: "gpiochip0"}).active(); err == nil || err.Error() != "no GPIO chip found" {
		t.Errorf("without a chip: %v", err)
	}
	m.file("/dev/gpiochip0", "")
	if _, err := (GPIO{Chip: "gpiochip0", Low: true, Pull: "up"}).active(); err == nil || err.Error() != "no GPIO chip found" {
		t.Errorf("with a file as a chip: %v", err)
	}
}

// TestSeal: a sealed program accepts the files that were packed with it and no others.
func TestSeal(t *testing.T) {
	m := &machine{t: t, dir: t.TempDir()}
	m.write(PolicyDir+"/config.toml", "slots")
	m.write(PolicyDir+"/keys/release.asc", "key")
	if err := CheckSeal(m.dir); err != nil || Sealed() {
		t.Errorf("without a seal: %v", err)
	}
	files := map[string][]byte{PolicyDir + "/config.toml": []byte("slots"), PolicyDir + "/keys/release.asc": []byte("key")}
	defer func(old string) { seal = old }(seal)
	seal = seal[:len(seal)-len(unsealed)] + PolicyDigest(files)
	if err := CheckSeal(m.dir); err != nil || !Sealed() {
		t.Errorf("the packed files: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(file string) error
		want   string
	}{
		{"another key", func(f string) error { return os.WriteFile(f, []byte("evil"), 0o600) }, "differs from"},
		{"one more", func(f string) error { return os.WriteFile(f+".more", nil, 0o600) }, "release.asc.more"},
		{"a link", func(f string) error { return os.Symlink("config.toml", f+".link") }, "neither a regular file"},
		{"a large file", func(f string) error { return os.Truncate(f, maxPolicy+1) }, "exceeds"},
		{"nothing", func(f string) error { return os.RemoveAll(filepath.Dir(filepath.Dir(f))) }, "differs from"},
	} {
		of := &machine{t: t, dir: t.TempDir()}
		of.write(PolicyDir+"/config.toml", "slots")
		if err := c.change(of.write(PolicyDir+"/keys/release.asc", "key")); err != nil {
			t.Fatal(err)
		}
		if err := CheckSeal(of.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: CheckSeal = %v; want %q", c.name, err, c.want)
		}
	}
}
