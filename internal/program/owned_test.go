package program_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/internal/program"
)

// TestOwned: a program is started only if nobody else could have put it in its place.
func TestOwned(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(dir, prog string) error
		bad     string // of the error
	}{
		{"own", func(string, string) error { return nil }, ""},
		{"written by all", func(_, prog string) error { return os.Chmod(prog, 0o757) }, "mode 0757"},
		{"in a folder written by all", func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "mode 0777"},
		{"in a sticky folder", func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, ""},
		{"of another user", func(_, prog string) error { return os.Chown(prog, 4711, 0) }, "belongs to user 4711"},
		{"in a folder of another user", func(dir, _ string) error { return os.Chown(dir, 4711, 0) }, "belongs to user 4711"},
		{"written by another group", func(_, prog string) error {
			if err := os.Chown(prog, -1, 4711); err != nil {
				return err
			}
			return os.Chmod(prog, 0o775)
		}, "mode 0775"},
		{"behind a link", func(dir, prog string) error {
			if err := os.Rename(prog, prog+".real"); err != nil {
				return err
			}
			if err := os.Chmod(prog+".real", 0o777); err != nil {
				return err
			}
			return os.Symlink(prog+".real", prog)
		}, "mode 0777"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Getuid() != 0 && strings.Contains(c.name, "another") {
				t.Skip("only root may give files away")
			}
			dir := filepath.Join(t.TempDir(), "hooks")
			prog := filepath.Join(dir, "prog")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(prog, []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.prepare(dir, prog); err != nil {
				t.Fatal(err)
			}
			out, err := program.Run(t.Context(), program.Command{Argv: []string{prog}})
			if c.bad == "" && (err != nil || string(out) != "ran\n") || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad) || len(out) > 0) {
				t.Errorf("Run() = %q, %v; want %q", out, err, c.bad)
			}
		})
	}
}
