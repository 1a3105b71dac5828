package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"updater/bmap"
	"updater/device"
	"updater/internal/rig"
	"updater/update"
)

// TestEventSchema: every event of installs that succeed, fail and are refused matches the schema.
func TestEventSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	r := rig.New(t)
	r.Sh(`printf '#!/bin/sh\necho hello\n' > hook; chmod 755 hook; cp image.img bad.img; cp image.img.bmap bad.img.bmap; cp image.img.bmap.asc bad.img.bmap.asc
		printf X | dd of=bad.img bs=1 seek=300000 conv=notrunc status=none`)
	r.Configure("", "\n[hooks]\npre_install = \"hook\"\n")
	r.Sh("sed -i 's/^tries = 1/tries = 3/' config.toml") // more than GRUB counts: a warning
	kinds := map[string]bool{}
	for _, args := range [][]string{{"bad.img"}, {"--progress", "json", "image.img"}, {"--sig", "other.sig", "image.img"}} {
		_, out, _ := r.Run(append([]string{"install", "--json", "--config", "config.toml"}, args...)...)
		last := ""
		for line := range strings.Lines(out) {
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
			if err == nil {
				err = schema.Validate(value)
			}
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			last = value.(map[string]any)["ev"].(string)
			kinds[last] = true
		}
		if last != "result" {
			t.Errorf("%v ends with %q", args, last)
		}
	}
	for _, kind := range []string{"device", "phase", "hook", "warn", "result"} {
		if !kinds[kind] {
			t.Errorf("no event of kind %s in %v", kind, kinds)
		}
	}
	for _, broken := range []string{`{}`, `{"ts":"2026-01-01T00:00:00Z","seq":1,"ev":"else"}`, `{"ts":"2026-01-01T00:00:00Z","seq":0,"ev":"phase","phase":"write"}`, `{"ts":"2026-01-01T00:00:00Z","seq":1,"ev":"phase","phase":"write","more":1}`} {
		value, _ := jsonschema.UnmarshalJSON(strings.NewReader(broken))
		if schema.Validate(value) == nil {
			t.Errorf("%s is valid", broken)
		}
	}
}

// TestTerminal: the bars of an install and of a copy, in the cells of a real terminal.
func TestTerminal(t *testing.T) {
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
	r := rig.New(t)
	for _, columns := range []string{"40", "80", "200"} {
		for verb, args := range map[string]string{"install": "install --rewrite --config config.toml image.img", "copy": "bmap copy --config config.toml image.img out.img"} {
			server := "tmux -S " + r.Path("socket") + " "
			r.Sh("rm -f socket ended out.img; " + server + `new-session -d -x ` + columns + ` -y 50 "` + r.Program + " " + args + `; touch ended; sleep 600"
				n=0; until [ -e ended ] || [ $((n+=1)) -gt 1200 ]; do sleep 0.1; done`)
			screen := r.Sh(server + "capture-pane -p; " + server + "kill-server")
			for _, label := range []string{"writing", "reading back"} {
				var lines []string
				for line := range strings.Lines(screen) {
					if strings.HasPrefix(line, label) {
						lines = append(lines, line)
					}
				}
				if len(lines) != 1 || !strings.Contains(lines[0], "100%") || !strings.Contains(lines[0], " in ") {
					t.Errorf("%s at %s columns: %q of\n%s", verb, columns, lines, screen)
				}
			}
		}
	}
}

// TestSplash: psplash gets the progress of an install, in its words; one that does not read does not stop it.
func TestSplash(t *testing.T) {
	r := rig.New(t)
	if err := unix.Mkfifo(r.Path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Install(0, "slot B boots next", "--psplash", "fifo", "image.img") // nobody listens
	f, err := os.OpenFile(r.Path("fifo"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.Install(0, "slot B boots next", "--psplash", "fifo", "--rewrite", "image.img")
	buf := make([]byte, 4096)
	n, err := f.Read(buf)
	if said := strings.ReplaceAll(string(buf[:n]), "\x00", "\n"); err != nil || !strings.HasPrefix(said, "MSG checking the signature\n") || !strings.Contains(said, "\nMSG writing\n") || !strings.HasSuffix(said, "PROGRESS 100\n") {
		t.Errorf("psplash has heard %q, %v", said, err)
	}
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until its pipe is full
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	r.Install(0, "slot B boots next", "--psplash", "fifo", "image.img")
}

func TestNearest(t *testing.T) {
	names := []string{"install", "status", "history", "health", "doctor", "mark"}
	for word, want := range map[string]string{"instal": "install", "isntall": "install", "stauts": "status", "helth": "health", "makr": "mark", "x": "", "provision": "", "doctro": "doctor"} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%q) = %q; want %q", word, got, want)
		}
	}
}

// TestClosedOutput: a standard output that is full, or whose reader is gone, changes neither what an install does nor its exit code, and costs a
// warning. SIGPIPE kills nothing, though standard error may be the closed pipe too.
func TestClosedOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	gone, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	gone.Close()
	for _, c := range []struct {
		name string
		out  *os.File
		both bool // standard error as well
		args []string
		next string // slot that boots next
	}{
		{"install, full", full, false, []string{"install", "image.img"}, "B"},
		{"install, closed", closed, false, []string{"install", "image.img"}, "B"},
		{"install, both closed", closed, true, []string{"install", "--verbose", "image.img"}, "B"},
		{"install --json, closed", closed, false, []string{"install", "--json", "image.img"}, "B"},
		{"activate, full", full, false, []string{"activate", "B"}, "B"},
		{"mark bad, closed", closed, false, []string{"mark", "bad", "B"}, "A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rig.New(t)
			cmd := exec.Command(r.Program, append(c.args, "--config", "config.toml")...)
			var errs bytes.Buffer
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Dir, r.Env, c.out, &errs
			if c.both {
				cmd.Stderr = c.out
			}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, errs.String())
			}
			if !c.both && !strings.Contains(errs.String(), "updater: warning: the command has done its work, but printing the result: ") {
				t.Errorf("no warning: %s", errs.String())
			}
			if _, out, _ := r.Run("status", "--json", "--config", "config.toml"); !strings.Contains(out, `"primary":"`+c.next+`"`) {
				t.Errorf("want slot %s next: %s", c.next, out)
			}
		})
	}
	// Where printing is the work, a failure to print is an error.
	r := rig.New(t)
	cmd := exec.Command(r.Program, "status", "--config", "config.toml")
	var errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Dir, r.Env, full, &errs
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != ExitFailed || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
		t.Errorf("status: %v: %s", err, errs.String())
	}
}

// TestStallNotice: a job that makes no progress for a minute is reported, once for each stall, and so is a disk that does not answer.
func TestStallNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		env := Env{Stdout: &errs, Stderr: &errs}
		p, stop := newReport(env, false).Progress()
		read := make(chan time.Duration) // of 512 KiB each
		ended := make(chan error, 1)
		go func() {
			ended <- update.CheckSlot(t.Context(), oneRange(t, 2<<20), reading(func() { time.Sleep(<-read) }), p)
		}()
		for _, takes := range []time.Duration{59 * time.Second, 150 * time.Second, 59 * time.Second, 61 * time.Second} {
			read <- takes
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stop()
		if n := strings.Count(errs.String(), "no progress for 1m0s in phase readback"); n != 2 {
			t.Errorf("%d notices; want 2:\n%s", n, errs.String())
		}
		errs.Reset()
		done := env.answering()
		time.Sleep(59 * time.Second)
		done()
		time.Sleep(time.Minute)
		if errs.Len() > 0 {
			t.Errorf("a disk that answered: %s", errs.String())
		}
		defer env.answering()()
		time.Sleep(61 * time.Second)
		if !strings.Contains(errs.String(), "no answer for 1m0s") {
			t.Errorf("a disk that does not answer: %q", errs.String())
		}
	})
}

// reading is a medium of zeros; the function is called at every read.
type reading func()

func (r reading) ReadBackAt(p []byte, _ int64) (int, error) { r(); clear(p); return len(p), nil }

// oneRange is the document of an image of zeros in one range.
func oneRange(t *testing.T, size int64) *update.Document {
	t.Helper()
	sum := sha256.Sum256(make([]byte, size))
	m, err := bmap.FromRanges(size, "sha256", []bmap.Range{{Length: size, Checksum: hex.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	return &update.Document{Map: m}
}

// TestStatusWithoutSlots: the first line says when no slot runs, as in the recovery, or none boots next.
func TestStatusWithoutSlots(t *testing.T) {
	for want, s := range map[string]device.Status{
		"disk d, boot loader grub, no slot runs, no slot boots next\n":  {},
		"disk d, boot loader grub, running slot A, boots next slot B\n": {Booted: "A", Primary: "B"},
		"disk d, boot loader grub, no slot runs, boots next slot B\n":   {Primary: "B"},
	} {
		var out bytes.Buffer
		s.Disk, s.Backend = "d", "grub"
		if err := printStatus(Env{Stdout: &out}, &s); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("printStatus = %v, %q; want %q", err, out.String(), want)
		}
	}
}
