package fleet_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/internal/crashdisk"
	"updater/internal/crashdisk/fuse"
)

// recorded runs the program on a model of the disk, which then knows every state that a power cut may leave.
func (l *line) recorded(args ...string) *crashdisk.Disk {
	l.Helper()
	disk := crashdisk.New(l.Read("disk.img"), crashdisk.Options{})
	model, err := fuse.Mount(disk, l.TempDir())
	if err != nil {
		l.Fatal(err)
	}
	config := strings.Replace(string(l.Read("config.toml")), `"disk.img"`, fmt.Sprintf("%q", model.File), 1)
	l.Write("model.toml", []byte(config))
	l.Expect(0, "", append(args, "--config", "model.toml")...)
	if err := model.Close(); err != nil {
		l.Fatal(err)
	}
	return disk
}

// someCuts is how many power cuts a test tries.
const someCuts = 30

// cuts calls check with the device as it is after power cuts that are spread over all of a record.
func (l *line) cuts(disk *crashdisk.Disk, slot string, check func() error) {
	l.Helper()
	plan := crashdisk.Plan{Exhaustive: 4, Random: 3, Torn: 4, DropOne: 4}
	all, err := disk.Crashes(plan, func(*crashdisk.State) error { return nil })
	if err != nil {
		l.Fatal(err)
	}
	n, states := 0, 0
	_, err = disk.Crashes(plan, func(cut *crashdisk.State) error {
		if n++; n*someCuts/all == (n-1)*someCuts/all {
			return nil
		}
		states++
		if err := os.WriteFile(l.Path("disk.img"), cut.Image, 0o600); err != nil {
			return err
		}
		l.boots(slot)
		return check()
	})
	if l.Logf("%d of %d states after power cuts", states, all); err != nil || states < 10 {
		l.Errorf("%d states: %v", states, err)
	}
}

// A power cut at any write of a switch, or of a whole update with its images, loses no report of a release that works, and makes no false one.
func TestCutInASwitch(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	for _, how := range []string{"activate B", "update"} {
		t.Run(how, func(t *testing.T) {
			l := newLine(t)
			l.publish("1", 1)
			if how != "update" {
				l.run(0, "slot B waits", "update", "--download-only")
			}
			l.cuts(l.recorded(strings.Fields(how)...), "A", func() error {
				if l.restart() == "A" {
					l.run(0, "slot A is good", "mark", "good")
					l.run(0, "slot B boots next", "update")
					l.restart()
				}
				l.run(0, "slot B is good", "mark", "good")
				l.run(0, "1 reports sent", "report", "--now")
				if got := l.reported(); !slices.Equal(got, []string{"1 good"}) {
					return fmt.Errorf("the server got %q", got)
				}
				return nil
			})
		})
	}
}

// A power cut at any write of a rollback makes no report unless the switch took place; then the report comes and the release is not tried again.
func TestCutInARollback(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	l := newLine(t)
	for _, version := range []string{"1", "1a"} {
		l.publish(version, 1)
		l.run(0, "installed version "+version, "update")
		l.restart()
		l.run(0, "is good", "mark", "good")
		l.run(0, "1 reports sent", "report", "--now")
	}
	l.reported()
	disk := l.recorded("rollback")
	switched := 0
	l.cuts(disk, "A", func() error {
		want := []string(nil)
		if l.Next() == "B" {
			want = []string{"1a fell-back"}
			switched++
		}
		l.Run("report", "--now", "--config", "config.toml")
		if got := l.reported(); !slices.Equal(got, want) {
			return fmt.Errorf("slot %s boots next, and the server got %q", l.Next(), got)
		}
		reason := "nothing newer"
		if want != nil {
			reason = "version 1a failed here"
		}
		l.restart()
		l.run(3, reason, "update")
		return nil
	})
	if switched == 0 {
		t.Error("no state after a power cut has the switch")
	}
}

// A power cut at any write of the mark loses no report: the mark of the next boot completes it.
func TestCutInAMark(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	l := newLine(t)
	l.publish("1", 1)
	l.run(0, "slot B boots next", "update")
	l.restart()
	l.cuts(l.recorded("mark", "good"), "B", func() error {
		if l.restart() == "A" { // the only try was spent, and the mark was lost with the power
			l.run(3, "version 1 failed here", "update")
			return nil
		}
		l.run(0, "slot B is good", "mark", "good")
		l.run(0, "1 reports sent", "report", "--now")
		if got := l.reported(); !slices.Equal(got, []string{"1 good"}) {
			return fmt.Errorf("the server got %q", got)
		}
		return nil
	})
}

// A power cut at any write after a fallback loses neither the memory of it nor its report, which may come twice, with one key.
func TestCutAfterAFallback(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	l := newLine(t)
	l.publish("1", 1)
	l.run(0, "slot B boots next", "update")
	if b, a := l.restart(), l.restart(); b != "B" || a != "A" {
		t.Fatalf("slots %s and %s boot", b, a)
	}
	disk := l.recorded("report", "--now") // finds the fallback, sends, forgets
	if got := l.reported(); !slices.Equal(got, []string{"1 fell-back"}) {
		t.Errorf("the server got %q", got)
	}
	l.cuts(disk, "A", func() error {
		l.run(3, "version 1 failed here at attempt 1", "update")
		l.Run("report", "--now", "--config", "config.toml")
		if got := l.reported(); len(got) > 0 && !slices.Equal(got, []string{"1 fell-back"}) {
			return fmt.Errorf("the server got %q", got)
		}
		return nil
	})
	if keys := slices.Compact(slices.Clone(l.keys)); len(keys) != 1 {
		t.Errorf("the report has %d keys", len(keys))
	}
}

// A power cut at any write of a repair leaves the running slot the next choice, and the repaired one is bootable only when it is whole. The next
// scrub completes the repair.
func TestCutInARepair(t *testing.T) {
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	l := newLine(t)
	l.both()
	want := l.slot("B")
	l.damage("B", 10)
	l.damage("B", 701)
	l.run(14, "slot B: damaged", "scrub") // until then it is corrupt and bootable
	l.cuts(l.recorded("scrub", "--repair"), "A", func() error {
		whole := bytes.Equal(l.slot("B"), want)
		if list := l.chain(); list[0] != "A" || !whole && slices.Contains(list, "B") {
			return fmt.Errorf("slots %q boot, and slot B is whole: %v", list, whole)
		}
		l.run(0, "slot B: ", "scrub", "--repair")
		l.run(0, "slot B  good", "status")
		if list := l.chain(); list[0] != "A" || !slices.Contains(list, "B") || !bytes.Equal(l.slot("B"), want) {
			return fmt.Errorf("slots %q boot after the repair", list)
		}
		return nil
	})
}

// chain returns the slots of the next boots if nothing is marked in between.
func (l *line) chain() (list []string) {
	l.Helper()
	l.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.now`)
	areas := [][]byte{l.Read("env.now")}
	for range 4 {
		list = append(list, boottest.GRUBScript(areas))
	}
	return list
}
