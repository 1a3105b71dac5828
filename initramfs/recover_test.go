package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// box is a device of tests.
type box struct {
	Device
	disk    func() (string, error)
	install func(url string) error
	once    string // slot that boots once
	intact  string // slot that holds what was signed
	looked  int
}

func (b *box) FindDisk() (string, error)                      { return b.disk() }
func (b *box) InstallURL(_ context.Context, url string) error { return b.install(url) }
func (b *box) Slots() []string                                { return []string{"A", "B"} }
func (b *box) Status(context.Context) (Status, error) {
	return Status{}, errors.New("no boot state")
}
func (b *box) Reactivate(context.Context) (slot string, err error) {
	b.looked++
	return b.intact, errors.New("slot A: its rootfs differs")
}

func (b *box) BootOnce(_ context.Context, slot string) error {
	if slot == "A" {
		return errors.New("slot A is half written")
	}
	b.once = slot
	return nil
}

// newRunner returns a runner with a serial console, whose input is typed into the channel, and what it logs.
func newRunner(t *testing.T, b *box) (r *runner, typed chan byte, log *strings.Builder) {
	t.Helper()
	screen, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	typed, log = make(chan byte, 64), new(strings.Builder)
	r = &runner{device: b, Options: Options{
		Work: new(Work), Console: &Console{lines: []*line{{f: screen, input: typed}}},
		Log: func(format string, a ...any) { fmt.Fprintf(log, format+"\n", a...) },
	}}
	if r.loader, err = NewLoader(t.TempDir(), t.Logf); err != nil {
		t.Fatal(err)
	}
	if r.events, err = ListenUevents(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { r.events.Close() })
	return r, typed, log
}

// TestRest: a person at the console ends a recovery, tries again or chooses a slot; a slot that is refused ends nothing.
func TestRest(t *testing.T) {
	for _, c := range []struct {
		keys       string
		want       action
		done, once string
	}{
		{"1\r", actionAgain, "", ""},
		{"3\r6\r", actionEnd, "reboot", ""}, // the slots first, which cannot be shown
		{"5\r", actionEnd, "reboot", "B"},
		{"7\r", actionEnd, "poweroff", ""},
		{"4\r9\r1\r", actionAgain, "", ""}, // a slot that is refused, no entry, and again
		{"", actionRetry, "", ""},
	} {
		t.Run(c.keys, func(t *testing.T) {
			b := new(box)
			r, typed, log := newRunner(t, b)
			go func() {
				for _, k := range []byte(c.keys) {
					if k != '\r' {
						time.Sleep(700 * time.Millisecond) // a menu drops earlier input
					}
					typed <- k
				}
			}()
			typed <- '6'
			typed <- '\r'
			got, err := r.rest(t.Context(), "/dev/none", 2*time.Second)
			if err != nil || got != c.want && got != actionAgain || r.OnDone != c.done || b.once != c.once { // a disk may appear beside the test
				t.Errorf("rest = %v, %v, then %q, slot %q; want %v, %q, %q\n%s", got, err, r.OnDone, b.once, c.want, c.done, c.once, log.String())
			}
			if strings.HasPrefix(c.keys, "4") && !strings.Contains(log.String(), "error: slot A is half written") {
				t.Errorf("a refused slot: %s", log.String())
			}
		})
	}
	r, _, _ := newRunner(t, new(box))
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("signal"))
	if got, err := r.rest(ctx, "", time.Hour); got != actionEnd || err == nil || err.Error() != "signal" {
		t.Errorf("a cancelled rest = %v, %v", got, err)
	}
}

// TestAddress: an address is typed at the console, and installed from once that was confirmed; another scheme is refused.
func TestAddress(t *testing.T) {
	installed := ""
	r, typed, log := newRunner(t, &box{install: func(url string) error { installed = url; return nil }})
	r.Network = func(context.Context) error { return nil }
	go func() {
		seen := 0
		for _, c := range []struct{ menu, text string }{ // a menu drops earlier input
			{"what to do", "2"}, {"install from", "1"}, {"type the http", "ftp://h/i"}, {"install from", "1"}, {"type the http", "http://h/i"},
			{"overwrite a slot", "1"}, {"install from", "1"}, {"type the http", "http://h/i"}, {"overwrite a slot", "2"},
		} {
			for {
				console, _ := os.ReadFile(r.Console.lines[0].f.Name())
				if at := strings.Index(string(console[seen:]), c.menu); at >= 0 {
					seen += at + len(c.menu)
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			for _, k := range []byte(c.text + "\r") {
				typed <- k
			}
		}
	}()
	got, err := r.rest(t.Context(), "", time.Minute)
	if got != actionEnd || err != nil || installed != "http://h/i" || !strings.Contains(log.String(), `error: "ftp://h/i" is no http:// or https:// address`) {
		t.Errorf("rest = %v, %v; installed from %q\n%s", got, err, installed, log.String())
	}
}

// TestOwnDisk: no part of the device's own disk is a candidate for a medium, and nothing is while that disk is unknown.
func TestOwnDisk(t *testing.T) {
	for disk, own := range map[string]bool{"/dev/mmcblk0": true, "/dev/mmcblk0boot0": true, "/dev/mmcblk0rpmb": true, "/dev/mmcblk1": false, "/dev/sda": false} {
		if got := (Block{Disk: disk}).of("/dev/mmcblk0"); got != own {
			t.Errorf("%s belongs to /dev/mmcblk0: %v", disk, got)
		}
	}
	r, _, _ := newRunner(t, new(box))
	if list, err := r.candidates(""); len(list) > 0 || err != nil {
		t.Errorf("candidates without a disk: %v, %v", list, err)
	}
}

// TestTryURL installs from an address once the network is up, and logs neither passwords nor queries.
func TestTryURL(t *testing.T) {
	const url = "https://user:secret@host/image.raw?token=secret"
	for _, c := range []struct {
		network, install error
		words            string
	}{
		{nil, nil, ""},
		{errors.New("no carrier"), nil, "error: installing from https://host/image.raw: no carrier"},
		{nil, errors.New("bad signature"), "error: installing from https://host/image.raw: bad signature\nhint: get the image again"},
	} {
		var installed string
		r, _, log := newRunner(t, &box{install: func(url string) error { installed = url; return c.install }})
		r.Network = func(context.Context) error { time.Sleep(50 * time.Millisecond); return c.network }
		r.Hint = func(err error) string {
			if errors.Is(err, c.install) {
				return "get the image again"
			}
			return ""
		}
		ok := r.tryURL(t.Context(), url)
		if ok != (c.words == "") || r.installed != ok || (installed == url) != (c.network == nil) {
			t.Errorf("tryURL = %v, installed %v from %q", ok, r.installed, installed)
		}
		if !strings.Contains(log.String(), c.words) || strings.Contains(log.String(), "secret") {
			t.Errorf("the log is %q; want %q and no secret", log.String(), c.words)
		}
	}
	if got := redact("http://[::1"); got != "(an invalid address)" {
		t.Errorf("redact = %q", got)
	}
}

// TestReactivateOnce: the slots are compared once in a recovery, and one that is intact ends it.
func TestReactivateOnce(t *testing.T) {
	for _, intact := range []string{"", "B"} {
		b := &box{intact: intact}
		r, _, log := newRunner(t, b)
		if got := r.reactivate(t.Context()); got != (intact != "") || !strings.Contains(log.String(), "its rootfs differs") {
			t.Errorf("reactivate = %v\n%s", got, log.String())
		}
		if r.reactivate(t.Context()) || b.looked != 1 {
			t.Errorf("the slots were compared %d times", b.looked)
		}
	}
}

// TestWaitDisk waits for a disk that appears, and names what is there when none does.
func TestWaitDisk(t *testing.T) {
	missing := errors.New("no disk matches")
	tries := 0
	r, _, _ := newRunner(t, &box{disk: func() (string, error) {
		if tries++; tries < 3 {
			return "", missing
		}
		return "/dev/vda", nil
	}})
	if disk, err := r.waitDisk(t.Context(), time.Minute); disk != "/dev/vda" || err != nil || tries != 3 {
		t.Errorf("waitDisk = %q, %v after %d tries", disk, err, tries)
	}
	tries = -100
	if _, err := r.waitDisk(t.Context(), 10*time.Millisecond); !errors.Is(err, missing) || !strings.Contains(err.Error(), "block devices after 10ms: ") {
		t.Errorf("waitDisk = %v", err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("signal"))
	if _, err := r.waitDisk(ctx, time.Hour); err == nil || err.Error() != "signal" {
		t.Errorf("a cancelled waitDisk = %v", err)
	}
}

// TestKeyNames: every name and number of a key has one code, anything else none.
func TestKeyNames(t *testing.T) {
	for name, code := range keyNames {
		if KeyCode(strings.ToUpper(name)) != code || KeyCode(KeyName(code)) != code {
			t.Errorf("key %s is %d, %q", name, KeyCode(name), KeyName(code))
		}
	}
	if KeyName(250) != "250" || volumeLabel("/dev/none") != "" {
		t.Error("a key or a node without a name has one")
	}
	for name, want := range map[string]uint16{"250": 250, "767": 767, "768": 0, "-1": 0, "": 0, "any": 0} {
		if got := KeyCode(name); got != want {
			t.Errorf("KeyCode(%q) = %d; want %d", name, got, want)
		}
	}
}
