package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/internal/rig"
)

// TestRebootOnce: --reboot restarts a device whose next slot holds the release already, and never one that runs it.
func TestRebootOnce(t *testing.T) {
	fixtures := makeFixtures(t)
	config := filepath.Join(fixtures, "reboot.toml")
	if err := os.WriteFile(config, []byte(`state = "reboot.state"`+"\n"+strings.Replace(rig.Configs["grub"], "disk.img", "grub.img", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	restarts := 0
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		env := Env{Stdout: &out, Stderr: &out, reboot: func() error { restarts++; return nil }}
		args = append([]string{"install", "--reboot", "--config", config}, append(args, filepath.Join(fixtures, "image.img"))...)
		return Run(t.Context(), args, env), out.String()
	}
	for _, c := range []struct {
		name     string
		args     []string
		code     int
		restarts int
	}{
		{"installed", nil, ExitDone, 1},
		{"installed and next", nil, ExitDone, 2},
		{"installed and next, as JSON", []string{"--json"}, ExitDone, 3},
		{"running", []string{"--booted", "B"}, ExitNothing, 3},
	} {
		if code, out := run(c.args...); code != c.code || restarts != c.restarts {
			t.Errorf("%s: exit %d, %d restarts, want %d and %d: %s", c.name, code, restarts, c.code, c.restarts, out)
		}
	}
	code := Run(t.Context(), []string{"install", "--reboot", "--rewrite", "--config", config, filepath.Join(fixtures, "image.img")},
		Env{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer), reboot: func() error { return errors.New("init does not answer") }})
	if code != ExitFailed {
		t.Errorf("a restart that failed: exit %d", code)
	}
}
