package main

import (
	"bytes"
	"errors"
	"fmt"
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

// TestUpdateRebootOnce: update --reboot restarts after an install and while the release waits to boot, and never once it runs.
func TestUpdateRebootOnce(t *testing.T) {
	r := rig.New(t)
	r.Sh("mkdir -p pub/1; cp --sparse=always image.img pub/1/rootfs.img; " +
		"updater release create --product demo --version 1 --rollback-index 1 -o pub/1/release.toml rootfs=pub/1/rootfs.img; " +
		"updater channel create --product demo -f pub/channel.toml; updater channel add -f pub/channel.toml pub/1")
	r.Sign("pub/1/release.toml", rig.Release...)
	r.Sign("pub/channel.toml", "other")
	fingerprints := r.Sh(`for who in release other; do gpg --with-colons --list-keys $who@example.com 2>/dev/null | awk -F: '/^fpr/ {print $10; exit}'; done; cp other.asc keys/`)
	keys := strings.Fields(fingerprints)
	r.Configure(`state = "device.state"`, fmt.Sprintf("\n[channel]\nurl = \"pub/channel.toml\"\n[[trust.key]]\nfingerprint = %q\n[[trust.key]]\nfingerprint = %q\ndocuments = [\"channel\"]\n", keys[0], keys[1]))
	running := func(slot string) {
		r.Sh(`sed -i 's/^booted = .*/booted = "'$0'"/' config.toml`, slot)
	}
	restarts := 0
	for _, c := range []struct {
		name, slot     string
		args           []string
		code, restarts int
	}{
		{"installed", "A", nil, ExitDone, 1},
		{"installed and next", "A", nil, ExitDone, 2},
		{"installed and next, as JSON", "A", []string{"--json"}, ExitDone, 3},
		{"on trial", "B", nil, ExitNothing, 3},
	} {
		running(c.slot)
		var out bytes.Buffer
		env := Env{Stdout: &out, Stderr: &out, reboot: func() error { restarts++; return nil }}
		code := Run(t.Context(), append([]string{"update", "--reboot", "--config", r.Path("config.toml")}, c.args...), env)
		if code != c.code || restarts != c.restarts {
			t.Errorf("%s: exit %d, %d restarts, want %d and %d: %s", c.name, code, restarts, c.code, c.restarts, out.String())
		}
	}
}
