package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"updater/internal/rig"
)

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
	// Where printing is the work, its failure is one.
	r := rig.New(t)
	cmd := exec.Command(r.Program, "status", "--config", "config.toml")
	var errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Dir, r.Env, full, &errs
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != ExitFailed || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
		t.Errorf("status: %v: %s", err, errs.String())
	}
}
