package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// appliance is a device whose slots and disk are as a test wants them.
type appliance struct {
	Device
	own       string // node of its disk
	bootable  bool
	intact    string  // slot that Reactivate finds
	fails     []error // of the installs, in their order; nil after them
	installed []string
	plan      func(plan string) error
	keeps     *os.File // the image, which is left open
	unplug    func()   // a person removes the medium after an install; may be nil
}

func (a *appliance) FindDisk() (string, error) {
	if a.own == "" {
		return "", errors.New("no disk matches")
	}
	return a.own, nil
}

func (a *appliance) result(what string) error {
	a.installed = append(a.installed, what)
	if n := len(a.installed); n <= len(a.fails) {
		return a.fails[n-1]
	}
	return nil
}

func (a *appliance) Install(_ context.Context, u Update) error {
	if data, err := os.ReadFile(u.Image); err != nil || string(data) != "updater/"+filepath.Base(u.Image) {
		return fmt.Errorf("reading the image: %q, %w", data, err)
	}
	a.keeps, _ = os.Open(u.Image)
	err := a.result(strings.TrimPrefix(u.Image, mediaDir+"/"))
	if err == nil && a.unplug != nil {
		a.unplug()
	}
	return err
}

func (a *appliance) InstallURL(_ context.Context, url string) error { return a.result(url) }
func (a *appliance) Status(context.Context) (Status, error)         { return Status{Bootable: a.bootable}, nil }
func (a *appliance) Slots() []string                                { return []string{"A", "B"} }
func (a *appliance) Reactivate(context.Context) (string, error)     { return a.intact, nil }

// requesting is an appliance whose running system asks for something.
type requesting struct {
	*appliance
	url string
}

func (r requesting) Requested() string { return r.url }

// factory is an appliance that provisions.
type factory struct{ *appliance }

func (f factory) Provision(_ context.Context, plan string) error { return f.plan(plan) }

// runIn runs a mode on the machine and returns the error and what was logged.
func runIn(ctx context.Context, t *testing.T, d Device, cmdline string, o Options) (*runner, string, error) {
	t.Helper()
	screen, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	log := new(strings.Builder)
	o.Work, o.Console = new(Work), &Console{lines: []*line{{f: screen, input: make(chan byte, 64)}}}
	o.Network = func(context.Context) error { return nil }
	o.Log = func(format string, a ...any) { fmt.Fprintf(log, format+"\n", a...) }
	r := &runner{Options: o, Params: ParseCmdline(cmdline), device: d}
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	err = r.run(ctx)
	if mounts, bad := os.ReadFile("/proc/self/mounts"); bad != nil || strings.Contains(string(mounts), mediaDir) {
		t.Errorf("a medium is mounted still: %v", bad)
	}
	return r, log.String(), err
}

// TestRun: each mode with media and addresses of every kind. The device's own disk is never used as a medium, a disk with partitions only
// by them, and a medium that is damaged ends nothing.
func TestRun(t *testing.T) {
	m := newMachine(t)
	m.disk("empty", "", "") // a drive without a medium
	own := m.disk("sda", m.image(UpdateLabel, "updater/own.bmap", "updater/own"), "")
	refused, broken := errors.New("bad signature"), errors.New("no such host")
	const url = "http://server/image"
	plain := func() { m.disk("sdb", m.image("", "updater/a.bmap", "updater/a.zst"), "") }
	late := func() {
		plain()
		there := filepath.Join("/sys/class/block", m.sysName("sdb"))
		if err := os.Remove(there); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() {
			if err := os.Symlink(filepath.Join(m.dir, "sys", m.sysName("sdb")), there); err != nil {
				t.Error(err)
			}
		})
	}
	for _, c := range []struct {
		name, cmdline string
		media         func()
		device        *appliance
		options       Options
		installed     []string
		log, err      string
	}{
		{name: "a medium", media: plain, device: &appliance{own: own}, installed: []string{"updater/a.zst"}, log: "update on "},
		{name: "a partition of a medium", media: func() {
			m.disk("sdc", m.image("", "updater/disk.bmap", "updater/disk"), "")
			m.disk("sdc1", m.image("", "updater/part.bmap", "updater/part"), "sdc")
		}, device: &appliance{own: own}, installed: []string{"updater/part"}},
		{name: "others before it", media: func() {
			m.disk("sdd", m.image(""), "")
			damaged := m.image(UpdateLabel)
			f, err := os.OpenFile(damaged, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{255, 255, 255, 255}, 1024+96); err != nil { // features that no kernel knows
				t.Fatal(err)
			}
			m.disk("sde", damaged, "")
			m.disk("sdf", m.image("", "updater/a.bmap", "updater/b.bmap"), "")
			m.disk("sdg", m.image("", "updater/g.bmap", "updater/g"), "")
		}, device: &appliance{own: own}, installed: []string{"updater/g"}},
		{name: "a medium that comes late", media: late, device: &appliance{own: own}, installed: []string{"updater/a.zst"}},
		{name: "a recovery whose medium comes late", cmdline: "updater.mode=recover", media: late, device: &appliance{own: own, bootable: true},
			installed: []string{"updater/a.zst"}, log: "trying again in 5s"},
		{name: "refused, with a slot", media: plain, device: &appliance{own: own, bootable: true, fails: []error{refused}},
			installed: []string{"updater/a.zst"}, err: "bad signature"},
		{name: "refused, without a slot", media: plain, device: &appliance{own: own, fails: []error{refused, refused}}, options: Options{URLs: []string{url}},
			installed: []string{"updater/a.zst", "updater/a.zst", url}, log: "no slot is bootable"},
		{name: "an address", cmdline: "updater.url=" + url, device: &appliance{own: own}, installed: []string{url}},
		{name: "a recovery", cmdline: "updater.mode=recover updater.url=" + url, device: &appliance{own: own, bootable: true, fails: []error{broken}},
			options: Options{URLs: []string{"https://other"}}, installed: []string{url, "https://other"}, log: "error: installing from " + url + ": no such host"},
		{name: "a recovery with a slot that is intact", cmdline: "updater.mode=recover", device: &appliance{own: own, intact: "B"},
			log: "recovery: comparing the slots"},
		{name: "a recovery from a medium", cmdline: "updater.mode=recover", media: plain, device: &appliance{own: own}, installed: []string{"updater/a.zst"}},
		{name: "status", cmdline: "updater.mode=status", device: &appliance{own: own}},
		{name: "no provisioning", cmdline: "updater.mode=provision", device: &appliance{own: own}, err: "does not support provisioning"},
		{name: "no device", device: &appliance{own: own}, options: Options{NoDevice: refused}, err: "bad signature"},
		{name: "a key that nobody holds", cmdline: "updater.mode=status", device: &appliance{own: own}, options: Options{Trigger: Trigger{Key: 1}}},
		{name: "a chip that is missing", cmdline: "updater.mode=status", device: &appliance{own: own},
			options: Options{Trigger: Trigger{GPIO: GPIO{Chip: "none"}}}, log: "reading the recovery trigger: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.media != nil {
				c.media()
				c.device.unplug = func() { m.unplug("sda") } // and the empty drive
				t.Cleanup(c.device.unplug)
			}
			r, log, err := runIn(t.Context(), t, c.device, c.cmdline, c.options)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || !strings.Contains(log, c.log) {
				t.Fatalf("run = %v; want %q, and %q in\n%s", err, c.err, c.log, log)
			}
			_ = c.device.keeps.Close()
			if !slices.Equal(c.device.installed, c.installed) || r.installed != (err == nil && len(c.installed) > 0) {
				t.Errorf("installed %q, %v; want %q\n%s", c.device.installed, r.installed, c.installed, log)
			}
		})
	}
}

// TestRequested: the update that the running system asked for comes first; if it is unavailable, and the slot still boots, the recovery ends.
func TestRequested(t *testing.T) {
	m := newMachine(t)
	own := m.disk("sda", "", "")
	for _, bootable := range []bool{true, false} {
		a := &appliance{own: own, bootable: bootable, fails: []error{errors.New("no route"), errors.New("no route")}, intact: "A"}
		_, log, err := runIn(t.Context(), t, requesting{a, "https://asked"}, "updater.mode=recover", Options{URLs: []string{"https://other"}})
		if err != nil || !slices.Equal(a.installed, []string{"https://asked", "https://other"}) || strings.Contains(log, "its slot is unchanged") != bootable {
			t.Errorf("bootable %v: run = %v after %q\n%s", bootable, err, a.installed, log)
		}
	}
}

// TestRunCancelled: a signal ends each mode that waits for a device.
func TestRunCancelled(t *testing.T) {
	m := newMachine(t)
	own := m.disk("sda", "", "")
	stop := errors.New("signal")
	for cmdline, d := range map[string]Device{
		"": &appliance{own: own}, "updater.mode=status": &appliance{}, "updater.mode=recover": &appliance{own: own, bootable: true},
		"quiet updater.mode=recover": &appliance{}, // without its disk
		"updater.mode=provision":     factory{&appliance{}},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(600*time.Millisecond, func() { cancel(stop) })
		if _, log, err := runIn(ctx, t, d, cmdline, Options{Trigger: Trigger{Key: 1}}); !errors.Is(err, stop) {
			t.Errorf("%q, cancelled: run = %v\n%s", cmdline, err, log)
		}
	}
}

// TestProvisionFrom: a plan comes from the address of the command line, or from the first medium that holds one, which is mounted meanwhile.
func TestProvisionFrom(t *testing.T) {
	m := newMachine(t)
	m.disk("sda", "", "")
	m.disk("sdb", m.image("", "updater/other"), "")
	m.disk("sdc", m.image("", planFile), "")
	bad := errors.New("a bad plan")
	for cmdline, want := range map[string]string{"updater.url=http://server/plan": "http://server/plan", "": filepath.Join(mediaDir, planFile)} {
		for _, result := range []error{nil, bad} {
			got := ""
			a := &appliance{plan: func(plan string) error {
				got = plan
				if data, err := os.ReadFile(plan); strings.HasPrefix(plan, "/") && (err != nil || string(data) != planFile) {
					return fmt.Errorf("reading the plan: %q, %w", data, err)
				}
				return result
			}}
			if _, log, err := runIn(t.Context(), t, factory{a}, "updater.mode=provision "+cmdline, Options{}); !errors.Is(err, result) || got != want {
				t.Errorf("provision = %v with plan %q; want %v, %q\n%s", err, got, result, want, log)
			}
		}
	}
}

// TestSources: the menu of sources has the media and addresses, each of which installs.
func TestSources(t *testing.T) {
	m := newMachine(t)
	own := m.disk("sda", "", "")
	m.disk("sdb", m.image("", "updater/a.bmap", "updater/a.zst"), "")
	m.disk("sdc", m.image("", "updater/c.bmap"), "") // no image: no source
	a := &appliance{own: own, fails: []error{errors.New("bad signature"), nil, errors.New("no route"), nil}}
	r, log, err := runIn(t.Context(), t, a, "updater.mode=status", Options{URLs: []string{"https://user:secret@server/x"}})
	if err != nil {
		t.Fatalf("run = %v\n%s", err, log)
	}
	if r.events, err = ListenUevents(); err != nil {
		t.Fatal(err)
	}
	defer r.events.Close()
	s := r.sources(t.Context(), own)
	if len(s.do) != 4 || !strings.HasSuffix(s.labels[0], "sdb, updater/a.zst") || s.labels[1] != "https://server/x" || s.labels[3] != "back" {
		t.Fatalf("the sources are %q", s.labels)
	}
	for i, want := range []action{actionRetry, actionEnd, actionRetry, actionEnd} { // each fails once
		_, sure := s.do[i/2]()
		if _, back := sure.do[0](); back != s {
			t.Errorf("source %q: no leads to %+v", s.labels[i/2], back)
		}
		if got, sub := sure.do[1](); got != want || sub != nil {
			t.Errorf("source %q = %v, %v; want %v", s.labels[i/2], got, sub, want)
		}
	}
	if _, sub := s.do[3](); sub == nil || sub.title != "what to do" {
		t.Errorf("back leads to %+v", sub)
	}
	m.unplug("sda")
	_, sure := s.do[0]()
	if got, _ := sure.do[1](); got != actionRetry {
		t.Errorf("a medium that is gone = %v", got)
	}
	if want := []string{"updater/a.zst", "updater/a.zst", "https://user:secret@server/x", "https://user:secret@server/x"}; !slices.Equal(a.installed, want) {
		t.Errorf("installed %q; want %q", a.installed, want)
	}
}

// TestLogMenu: the log goes to a medium that is chosen; one with another file system than FAT is refused, unmounted and unchanged.
func TestLogMenu(t *testing.T) {
	m := newMachine(t)
	own := m.disk("sda", "", "")
	image := m.image("", "updater/a.bmap")
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	node := m.disk("sdb", image, "")
	r, _, err := runIn(t.Context(), t, &appliance{own: own}, "updater.mode=status", Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := new(strings.Builder)
	r.Log = func(format string, a ...any) { fmt.Fprintf(log, format+"\n", a...) }
	back := &menu{title: "before"}
	list := r.logMenu(own, back)
	if !slices.Equal(list.labels, []string{node, "back"}) {
		t.Fatalf("the media are %q", list.labels)
	}
	for _, do := range list.do {
		if _, next := do(); next != back {
			t.Errorf("a choice leads to %+v", next)
		}
	}
	after, err := os.ReadFile(image)
	if want := "error: writing the log to " + node + ", which must be FAT or exFAT: "; err != nil || !strings.HasPrefix(log.String(), want) || !bytes.Equal(before, after) {
		t.Errorf("the log is %q; want %q, and an unchanged medium: %v", log.String(), want, bytes.Equal(before, after))
	}
}

// TestModuleFiles: a module that the kernel refuses is an error that names it, once; one that is missing too.
func TestModuleFiles(t *testing.T) {
	m := newMachine(t)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	dir := "lib/modules/" + unix.ByteSliceToString(u.Release[:])
	m.write(dir+"/modules.dep", "kernel/bad_one.ko:\n")
	m.write(dir+"/kernel/bad_one.ko", "no module")
	m.write(dir+"/modules.softdep", "")
	m.write(dir+"/modules.alias", "alias test:* bad_one\n")
	var log []string
	l, err := NewLoader(m.dir, func(format string, a ...any) { log = append(log, fmt.Sprintf(format, a...)) })
	if err != nil {
		t.Fatal(err)
	}
	l.plug("")
	l.plug("test:x")
	l.plug("test:y")
	if len(log) != 1 || !strings.HasPrefix(log[0], "loading module bad_one: finit_module: ") {
		t.Errorf("the log is %q", log)
	}
	if err := Modprobe("what-is-built-in"); err != nil {
		t.Errorf("Modprobe = %v; want nil, as for what is built in", err)
	}
	l.Coldplug()
	if len(log) != 1 {
		t.Errorf("after Coldplug the log is %q", log)
	}
}

// TestUevents: an event of the kernel ends a wait, and asks for no module if it names none.
func TestUevents(t *testing.T) {
	m := newMachine(t)
	u, err := ListenUevents()
	if err != nil {
		t.Skip(err)
	}
	defer u.Close()
	l, err := NewLoader(m.dir, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/sys/devices/virtual/mem/null/uevent", []byte("change"), 0); err != nil {
		t.Skip(err)
	}
	began := time.Now()
	if err := u.Wait(l, time.Minute); err != nil || time.Since(began) > 50*time.Second || len(l.Unmatched()) > 0 {
		t.Errorf("Wait = %v after %s, modules %q", err, time.Since(began), l.Unmatched())
	}
	u.Close()
	if err := u.Wait(l, time.Millisecond); err == nil {
		t.Error("Wait on a closed socket = nil")
	}
}
