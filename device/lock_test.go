package device_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/device"
	"updater/device/config"
	"updater/internal/rig"
	"updater/state"
	"updater/update"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("TEST_RECORD_INTO"); path != "" {
		if err := recordSome(path, os.Getenv("TEST_RECORD_AS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rig.Cleanly(m).Run())
}

const recordsEach = 3

// recordSome is the work of one of many processes: it opens the device and records some installs.
func recordSome(path, name string) error {
	c, err := device.LoadConfig(path, config.Build{})
	if err != nil {
		return err
	}
	d, err := device.Open(c, device.Options{Purpose: device.Change})
	if err != nil {
		return err
	}
	for i := range recordsEach {
		err = errors.Join(err, d.Record(update.Record{Slot: "B", Role: "rootfs", Outcome: update.OutcomeInstalled, Version: fmt.Sprint(name, "-", i), At: d.Now()}))
	}
	return errors.Join(err, d.Close())
}

// TestChangesOfManyProcesses: 20 processes change the state store at the same time, beside one that holds the install lock. No change is
// lost, and the store is whole.
func TestChangesOfManyProcesses(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	c := load(t, r)
	installing, err := device.Open(c, device.Options{Purpose: device.Install})
	if err != nil {
		t.Fatal(err)
	}
	defer installing.Close()
	var running []*exec.Cmd
	for i := range 20 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TEST_RECORD_INTO="+r.Path("config.toml"), fmt.Sprint("TEST_RECORD_AS=", i))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	known, err := device.ReadState(c)
	if err != nil || len(known.Warnings) > 0 {
		t.Fatalf("ReadState = %+v, %v", known, err)
	}
	for i := range running {
		for j := range recordsEach {
			if want := fmt.Sprint(i, "-", j); !slices.ContainsFunc(known.History, func(e state.Event) bool { return e.Version == want }) {
				t.Errorf("the record %s is lost", want)
			}
		}
	}
}

func load(t *testing.T, r *rig.Rig) *config.Config {
	t.Helper()
	c, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSecondInstall: only one install holds a device, while changes of the boot state go on.
func TestSecondInstall(t *testing.T) {
	r := rig.New(t)
	c := load(t, r)
	first, err := device.Open(c, device.Options{Purpose: device.Install})
	if err != nil {
		t.Fatal(err)
	}
	_, err = device.Open(c, device.Options{Purpose: device.Install})
	if held, ok := errors.AsType[*blockdev.LockedError](err); !ok || held.PID != os.Getpid() {
		t.Errorf("a second install: %v; want a LockedError that names this process", err)
	}
	change, err := device.Open(c, device.Options{Purpose: device.Change})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change.MarkGood(t.Context(), "A"), change.Close(), first.Close()); err != nil {
		t.Error(err)
	}
}

// TestInstallOutlastsUdev: udev, which probes the disk, holds its shared lock for two seconds; an install waits for that.
func TestInstallOutlastsUdev(t *testing.T) {
	r := rig.New(t)
	c := load(t, r)
	synctest.Test(t, func(t *testing.T) {
		udev, err := os.Open(r.Path("disk.img"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(udev.Fd()), unix.LOCK_SH); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*time.Second, func() { _ = udev.Close() })
		d, err := device.Open(c, device.Options{Purpose: device.Install})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// stalled starts an install from standard input, which waits for the image with nothing written yet. finish hands the image over and
// returns the exit code and what the program printed.
func stalled(t *testing.T, r *rig.Rig, args ...string) (finish func() (code int, output string)) {
	t.Helper()
	cmd := r.Command(append([]string{"install", "--config", "config.toml"}, args...)...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	disk, err := blockdev.OpenDisk(r.Path("disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for range 600 {
		if err := disk.Lock(0); err != nil {
			break
		}
		_ = disk.Close()
		time.Sleep(20 * time.Millisecond)
		if disk, err = blockdev.OpenDisk(r.Path("disk.img")); err != nil {
			t.Fatal(err)
		}
	}
	return func() (int, string) {
		image, err := os.Open(r.Path("image.img"))
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		_, _ = io.Copy(stdin, image) // it may end before the image does
		_ = stdin.Close()
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode(), output.String()
	}
}

// TestWhileAnInstallWaits: other commands answer while an install waits for its image, and a floor that rises meanwhile ends it before a byte
// of the slot is written.
func TestWhileAnInstallWaits(t *testing.T) {
	booted := func(slot string) []string { return []string{"--config", "config.toml", "--booted", slot} }
	for _, c := range []struct {
		name  string
		other []string // command line of the other process
		code  int
		words string
	}{
		{"status", append([]string{"status"}, booted("A")...), 0, "slot B boots next"},
		{"mark good of the running slot", append([]string{"mark", "good"}, booted("A")...), 0, "slot B boots next"},
		{"a floor that rises", append([]string{"mark", "good"}, booted("B")...), 12, "rollback index is 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rig.New(t)
			r.Configure(`state = "PARTLABEL=state"`, "")
			r.Sh(`sed -i '/^booted/d' config.toml`)
			r.Bmap("new.bmap", rig.Release, "--product", "demo", "--version", "9", "--rollback-index", "9")
			r.Bmap("old.bmap", rig.Release, "--product", "demo", "--version", "5", "--rollback-index", "5")
			if c.code == 12 { // slot B has run 9 before, which nobody has marked good yet
				r.Install(0, "slot B boots next", "--booted", "A", "--bmap", "new.bmap", "image.img")
				r.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set ORDER="A B"; mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
			}
			finish := stalled(t, r, "--booted", "A", "--bmap", "old.bmap", "-")
			if code, out, errs := r.Run(c.other...); code != 0 {
				t.Fatalf("updater %v: exit %d while an install waits: %s%s", c.other, code, out, errs)
			}
			if code, output := finish(); code != c.code || !strings.Contains(output, c.words) {
				t.Errorf("the install: exit %d; want %d with %q:\n%s", code, c.code, c.words, output)
			}
		})
	}
}

// TestChangedDuringInstall: an install ends without a switch when another process changed what it had seen.
func TestChangedDuringInstall(t *testing.T) {
	record := func(o update.Outcome) update.Record {
		return update.Record{Slot: "B", Role: "rootfs", Outcome: o, BmapChecksum: "ab", RollbackIndex: 1}
	}
	for _, c := range []struct {
		name   string
		before func(d *device.Device) error // of the install
		other  func(d *device.Device) error
		after  func(d *device.Device) error // of the install; must fail
	}{
		{"another slot boots next, before invalidation", nil,
			func(d *device.Device) error { return d.SwitchTo(t.Context(), "B", 1) },
			func(d *device.Device) error { return d.Invalidate(t.Context(), "B") }},
		{"another slot boots next, before the switch",
			func(d *device.Device) error { return d.Record(record(update.OutcomeInstalled)) },
			func(d *device.Device) error { return d.SwitchTo(t.Context(), "B", 1) },
			func(d *device.Device) error { return d.Activate(t.Context(), "B", 1) }},
		{"another record of the slot",
			func(d *device.Device) error { return d.Record(record(update.OutcomeWriting)) },
			func(d *device.Device) error { return d.Record(record(update.OutcomeFailed)) },
			func(d *device.Device) error { return d.Record(record(update.OutcomeInstalled)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rig.New(t)
			r.Configure(`state = "PARTLABEL=state"`, "")
			install := open(t, r, device.Install)
			if _, err := install.Slots(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				if err := c.before(install); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.other(open(t, r, device.Change)); err != nil {
				t.Fatal(err)
			}
			err := c.after(install)
			if _, ok := errors.AsType[*device.ChangedError](err); !ok {
				t.Errorf("%v; want a ChangedError", err)
			}
		})
	}
}

// TestSwitchToWhileWriting: a slot that is being written cannot be chosen.
func TestSwitchToWhileWriting(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	install := open(t, r, device.Install)
	if err := install.Record(update.Record{Slot: "B", Role: "rootfs", Outcome: update.OutcomeWriting}); err != nil {
		t.Fatal(err)
	}
	err := open(t, r, device.Change).SwitchTo(t.Context(), "B", 1)
	if _, ok := errors.AsType[*update.BootError](err); !ok || !errors.Is(err, device.ErrRefused) {
		t.Errorf("SwitchTo = %v; want a refusal", err)
	}
}

func open(t *testing.T, r *rig.Rig, p device.Purpose) *device.Device {
	t.Helper()
	d, err := device.Open(load(t, r), device.Options{Purpose: p, Booted: "A"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestMarkGoodWaits: mark good outlasts the change of another process on a slow medium.
func TestMarkGoodWaits(t *testing.T) {
	r := rig.New(t)
	disk, err := blockdev.OpenDisk(r.Path("disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	change := open(t, r, device.Change)
	synctest.Test(t, func(t *testing.T) {
		unlock, err := disk.LockBoot(0)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- change.MarkGood(t.Context(), "A") }()
		time.Sleep(2 * time.Minute)
		if err := errors.Join(unlock(), <-ended); err != nil {
			t.Error(err)
		}
	})
}

// TestEmptyStateFile: a power cut while the file of the state store is made leaves an empty one on vfat.
func TestEmptyStateFile(t *testing.T) {
	r := rig.New(t)
	r.Configure(`state = "store"`, "")
	r.Write("store", nil)
	c := load(t, r)
	if known, err := device.ReadState(c); err != nil || len(known.Warnings) != 1 || !known.Warnings[0].New {
		t.Fatalf("ReadState of an empty file = %+v, %v; want that it is new", known, err)
	}
	if err := recordSome(r.Path("config.toml"), "v"); err != nil {
		t.Fatal(err)
	}
	if known, err := device.ReadState(c); err != nil || len(known.Warnings) > 0 || known.Slots["B"] == nil {
		t.Errorf("ReadState = %+v, %v; want the record", known, err)
	}
}
