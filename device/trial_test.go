package device_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/internal/rig"
	"updater/state"
	"updater/update"
)

// trial is a device of a fleet whose boot loader is a file of the test.
type trial struct {
	*rig.Rig
	t *testing.T
}

func newTrial(t *testing.T) *trial {
	r := &trial{Rig: rig.New(t), t: t}
	r.Configure(`state = "PARTLABEL=state"`, "\n[report]\nurl = \"http://127.0.0.1:9/\"\n")
	text := string(r.Read("config.toml"))
	from, to := strings.Index(text, "backend ="), strings.Index(text, "tries =")
	r.Write("config.toml", fmt.Appendf(nil, `%sbackend = "custom"
commands.state = ["/bin/cat", "%[2]s"]
commands.invalidate = ["/bin/cp", "%[3]sbad", "%[2]s"]
commands.activate = ["/bin/cp", "%[3]s{slot}", "%[2]s"]
commands.good = ["/bin/cp", "%[3]sgood", "%[2]s"]
%[4]s`, text[:from], r.Path("boot"), r.Path("activate-"), strings.Replace(text[to:], "tries = 1", "tries = 3", 1)))
	r.Write("activate-A", []byte("A trying 3 next\nB bad\n"))
	r.Write("activate-B", []byte("A good\nB trying 3 next\n"))
	r.Write("activate-good", []byte("A good\nB good next\n"))
	r.Write("activate-bad", []byte("A good next\nB bad\n"))
	r.Write("boot", []byte("A good next\nB bad\n"))
	return r
}

// open opens the device with a slot that runs.
func (r *trial) open(booted string) *device.Device {
	r.t.Helper()
	d, err := device.Open(load(r.t, r.Rig), device.Options{Purpose: device.Change, Booted: booted})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = d.Close() })
	return d
}

// activate installs a release into slot B and activates it.
func (r *trial) activate(identity string) {
	r.t.Helper()
	d := r.open("A")
	d.Attempt = 1
	err := d.Record(update.Record{
		Slot: "B", Role: "rootfs", Outcome: update.OutcomeInstalled, Release: identity, Version: "2", RollbackIndex: 2, At: d.Now(),
	})
	if err == nil {
		err = d.SwitchTo(r.t.Context(), "B", 3)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// settled is the device's memory of its releases once the boot loader's state is text.
func (r *trial) settled(text string) string {
	r.t.Helper()
	r.Write("boot", []byte(text))
	return words(r.open("A").State().Fleet)
}

func words(f state.Fleet) string {
	var list []string
	if f.Trial.Release != "" && !f.Trial.Ended {
		list = append(list, "on trial")
	}
	for _, n := range f.Failures {
		list = append(list, fmt.Sprintf("%s failed at attempt %d: %s", n.Release, n.Attempt, n.Detail))
	}
	for _, n := range f.Reports {
		list = append(list, fmt.Sprintf("report %s of install %d", n.Outcome, n.Install))
	}
	return strings.Join(list, "; ")
}

// Only the boot loader's state decides what became of a slot.
func TestTrial(t *testing.T) {
	const failed = "r failed at attempt 1: its tries are spent; report fell-back of install 1"
	for _, c := range []struct{ name, boot, want string }{
		{"it was not started yet", "A good\nB trying 3 next\n", "on trial"},
		{"it has tries left", "A good\nB trying 1 next\n", "on trial"},
		{"its tries are spent", "A good next\nB trying 0\n", failed},
		{"it was put back by other means", "A good next\nB trying 2\n", ""},
		{"the activation never came, or left no trace", "A good next\nB bad\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTrial(t)
			r.activate("r")
			for range 2 { // once is all
				if got := r.settled(c.boot); got != c.want {
					t.Errorf("with %q it is %q; want %q", c.boot, got, c.want)
				}
			}
		})
	}
}

// Where the boot loader leaves no trace of a try, a release fails after boot.tries activations, and another one begins anew.
func TestTrialWithoutATrace(t *testing.T) {
	r := newTrial(t)
	for n, step := range []struct{ identity, want string }{
		{"r", ""}, {"r", ""}, {"s", ""}, {"r", ""}, {"r", ""},
		{"r", "r failed at attempt 1: it did not come up 3 times; report fell-back of install 6"},
	} {
		r.activate(step.identity)
		if got := r.settled("A good next\nB bad\n"); got != step.want {
			t.Errorf("step %d: %q; want %q", n+1, got, step.want)
		}
	}
}

// A mark, a person's switch back and a mark of the slot as bad end the trial.
func TestTrialEnds(t *testing.T) {
	for _, c := range []struct {
		name, booted, want string
		end                func(d *device.Device) error
	}{
		{"good", "B", "report good of install 1", func(d *device.Device) error { return d.MarkGood(t.Context(), "B") }},
		{
			"bad", "A", "r failed at attempt 1: it was marked bad; report fell-back of install 1",
			func(d *device.Device) error { return d.MarkBad(t.Context(), "B") },
		},
		{"switched back", "A", "", func(d *device.Device) error { return d.SwitchTo(t.Context(), "A", 3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTrial(t)
			r.activate("r")
			for range 2 {
				d := r.open(c.booted)
				if err := c.end(d); err != nil {
					t.Fatal(err)
				}
				if got := words(d.State().Fleet); got != c.want {
					t.Errorf("it is %q; want %q", got, c.want)
				}
			}
		})
	}
}

// A rollback that ended before its activation does not count: nothing failed, and no report waits.
func TestRollbackWithoutASwitch(t *testing.T) {
	for _, c := range []struct{ name, boot, want string }{
		{"the activation never came", "A good\nB good next\n", "report good of install 1"},
		{"it came", "A trying 3 next\nB good\n", "r failed at attempt 1: it was rolled back; report good of install 1; report fell-back of install 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTrial(t)
			r.activate("r")
			d := r.open("B")
			if err := d.MarkGood(t.Context(), "B"); err != nil {
				t.Fatal(err)
			}
			r.Sh("rm activate-A")
			if slot, err := d.Rollback(t.Context()); slot != "A" || err == nil {
				t.Fatalf("the rollback chooses slot %q: %v", slot, err)
			}
			r.Write("boot", []byte(c.boot))
			for range 2 {
				if got := words(r.open("B").State().Fleet); got != c.want {
					t.Errorf("it is %q; want %q", got, c.want)
				}
			}
		})
	}
}

// The identifier is the configured one, else the machine-id, else the serial; "uninitialized" does not count.
func TestIdentifier(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := new(config.Config)
	if got, err := device.Identifier(root, c); err == nil {
		t.Errorf("a machine without any has the identifier %q", got)
	}
	for _, step := range []struct{ file, text, want string }{
		{"sys/class/dmi/id/product_serial", "D1\n", "D1"},
		{"proc/device-tree/serial-number", "T1\x00", "T1"},
		{"etc/machine-id", "uninitialized\n", "T1"},
		{"etc/machine-id", "0123abcd\n", "0123abcd"},
	} {
		write(step.file, step.text)
		if got, err := device.Identifier(root, c); err != nil || got != step.want {
			t.Errorf("with %s of %q the identifier is %q, %v; want %q", step.file, step.text, got, err, step.want)
		}
	}
	c.Channel.Identifier = "unit-1"
	if got, err := device.Identifier(root, c); err != nil || got != "unit-1" {
		t.Errorf("the identifier is %q, %v; want the configured one", got, err)
	}
}
