package board

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/internal/terminal/terminaltest"
	"updater/provision/record"
)

// fill puts four units on a board, each in another state.
func fill(b *Board) {
	b.Add("slot1", "Ultra\x1bFit 32000 MB").Set(func(t *Tile) {
		t.Serial, t.Step, t.Total, t.Began = "AG001", "write", 100<<20, time.Now().Add(-5*time.Second)
	})
	b.slots[0].Done().Store(50 << 20)
	b.Add("slot2", "").Set(func(t *Tile) { t.Verdict = record.Pass })
	b.Add("slot3", "").Set(func(t *Tile) {
		t.Verdict, t.Error = record.Quarantine, "writing at 4096: input/output error after 3 attempts"
	})
	b.Add("slot4", "").Set(func(t *Tile) { t.Step = "flush" })
}

// frames are the screens of four units by their width.
var frames = map[int]string{
	40: `slot1        writing 50%
slot2        PASS
slot3        QUARANTINE: writing at 409
slot4        flushing the device
2 working  1 PASS  1 QUARANTINE`,
	80: `slot1  Ultra?Fit 32000 MB  AG001        slot2
writing                                 PASS
[###############----------------]  50%
10.0 MiB/s  5s left

slot3                                   slot4
QUARANTINE                              flushing the device
writing at 4096: input/output error af
ter 3 attempts

2 working  1 PASS  1 QUARANTINE`,
	200: `slot1  Ultra?Fit 32000 MB  AG001        slot2                                   slot3                                   slot4
writing                                 PASS                                    QUARANTINE                              flushing the device
[###############----------------]  50%                                          writing at 4096: input/output error af
10.0 MiB/s  5s left                                                             ter 3 attempts

2 working  1 PASS  1 QUARANTINE`,
}

func TestFrames(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	synctest.Test(t, func(t *testing.T) {
		b := new(Board)
		fill(b)
		for columns, want := range frames {
			lines := frame(b.Tiles(), time.Now(), columns, 12)
			for i, l := range lines {
				lines[i] = strings.TrimRight(l, " ")
			}
			if got := strings.Join(lines, "\n"); got != want {
				t.Errorf("%d columns:\n%s\nwant\n%s", columns, got, want)
			}
		}
		for width := range 45 {
			for height := 1; height < 12; height++ {
				if n := len(frame(b.Tiles(), time.Now(), width, height)); n > height {
					t.Fatalf("%d x %d cells: %d lines", width, height, n)
				}
			}
		}
		if got := frame(b.Tiles(), time.Now(), 40, 3); !strings.HasPrefix(got[2], "2 more do not fit") {
			t.Errorf("a low screen: %q", got)
		}
	})
}

// TestColours: verdicts have a colour, unless NO_COLOR is set.
func TestColours(t *testing.T) {
	tile := Tile{Name: "slot1", Verdict: record.Pass}
	for value, coloured := range map[string]bool{"": true, "1": false} {
		t.Setenv("NO_COLOR", value)
		text := strings.Join(tileText(tile, time.Now(), 40), "\n")
		if strings.Contains(text, "\x1b[1;30;42m") != coloured || !strings.Contains(text, "PASS") {
			t.Errorf("NO_COLOR=%q: %q", value, text)
		}
	}
}

// TestHostile: the names of disks move no cursor and begin no line.
func TestHostile(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	evil := "a\nb\x1b[2J\r\u202e\x7f\u009b1m"
	b := new(Board)
	b.Add(evil, evil).Set(func(t *Tile) {
		t.Serial, t.Error, t.Verdict, t.Step = evil, strings.Repeat(evil, 9), record.Verdict(evil), evil
	})
	for _, height := range []int{3, 40} {
		for _, l := range frame(b.Tiles(), time.Now(), 80, height) {
			if printable.Line(l) != l {
				t.Errorf("%q", l)
			}
		}
	}
	var out strings.Builder
	v := &View{out: &out, last: map[string]int64{}}
	v.line(b.Tiles()[0])
	if text := strings.TrimSuffix(out.String(), "\n"); printable.Line(text) != text {
		t.Errorf("%q", text)
	}
}

// TestView: every tile has its place, redrawn and resized, and leaves nothing behind.
func TestView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(Board)
		fill(b)
		screen := terminaltest.New(80, 24)
		v := Show(b, Options{Out: screen})
		for _, size := range [][2]int{{80, 24}, {33, 24}, {200, 8}, {40, 3}, {80, 24}} {
			screen.Resize(size[0], size[1])
			time.Sleep(5*refresh + 1)
			b.slots[0].Done().Add(1 << 20)
			got := screen.Text()
			if strings.Count(got, "slot1") != 1 || strings.Count(got, "working") != 1 || strings.Count(got, "quit") != 1 || strings.Count(got, "\n") > size[1] {
				t.Errorf("%v:\n%s", size, got)
			}
		}
		v.Stop()
		if got := screen.Text(); got != "\n" || len(screen.Unknown) > 0 {
			t.Errorf("the view leaves %q, unknown sequences %q", got, screen.Unknown)
		}
	})
}

// pty opens a pseudo-terminal.
func pty(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// TestKeys: an operator retries what failed, stops a run only after a second key, and detaches, after which there are lines.
func TestKeys(t *testing.T) {
	person, program := pty(t)
	quits := make(chan bool, 1)
	b := new(Board)
	fill(b)
	screen := terminaltest.New(80, 24)
	v := Show(b, Options{Out: screen, Keys: program, Quit: func() { quits <- true }})
	defer v.Stop()
	sees := func(want string) {
		t.Helper()
		for range 600 {
			if strings.Contains(screen.Text(), want) {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("no %q in\n%s", want, screen.Text())
	}
	press := func(key, want string) {
		t.Helper()
		if _, err := person.WriteString(key); err != nil {
			t.Fatal(err)
		}
		sees(want)
	}
	sees("d  detach")
	press("q", "stop every target")
	press("n", "d  detach")
	if len(quits) > 0 {
		t.Fatal("one key stops the run")
	}
	for key, want := range map[string]bool{"r": true, "q": false} {
		again := make(chan bool)
		go func() { again <- v.Again(nil) }()
		sees("r  retry")
		press("x"+key, "")
		if got := <-again; got != want {
			t.Errorf("%s retries: %v", key, got)
		}
	}
	press("q", "stop every target")
	press("y", "d  detach")
	<-quits
	press("d", "")
	for range 600 {
		if !v.screen.Load() {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.slots[3].Set(func(t *Tile) { t.Step = "latch" })
	sees("updater: slot4: latching\n")
	if v.Again(nil) {
		t.Error("a detached operator is asked")
	}
	if before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS); err != nil || before.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal does not echo again: %v", err)
	}
	if !terminal.Is(screen) {
		t.Error("the model is no terminal")
	}
}
