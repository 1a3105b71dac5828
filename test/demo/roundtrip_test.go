//go:build vm

package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// TestRoundTrip runs the story of the demo and checks the disk after every boot: the slots byte for byte,
// the boot state with grub-editenv, the partition table with sgdisk.
func TestRoundTrip(t *testing.T) {
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	if missing := abdisk.Missing(); missing != nil {
		t.Skip("missing Debian packages: ", strings.Join(missing, " "))
	}
	dir := os.Getenv("UPDATER_VM_DIR") // keeps the artefacts between runs
	if dir == "" {
		dir = t.TempDir()
	}
	s, err := newStory("../..", dir, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	act := func(name string, run func(context.Context) error) {
		t.Helper()
		if err := run(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	env := func(want map[string]string) {
		t.Helper()
		got, err := abdisk.Env{Disk: s.disk}.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("grubenv %s = %q; want %q (all: %v)", k, got[k], v, got)
			}
		}
		if out, err := exec.Command("sgdisk", "-v", s.disk).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
			t.Errorf("sgdisk -v: %v: %s", err, out)
		}
	}
	act("make build", func(ctx context.Context) error { return s.make(ctx, "build") })
	act("prepare", s.prepare)

	act("boot A", s.bootFirst)
	env(map[string]string{"ORDER": "A B", "A_OK": "1", "A_TRY": "0"})

	act("power cut", s.cut)
	env(map[string]string{"A_OK": "1", "A_TRY": "0", "B_OK": "0"})

	act("install 2", func(ctx context.Context) error { return s.install(ctx, 0, "B") })
	env(map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "0", "A_OK": "1", "A_TRY": "0", "next_entry": ""})
	act("slot B", func(context.Context) error { return s.holds("B", 0) })

	act("boot B", s.bootSecond)
	env(map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "0"})

	act("install 3", func(ctx context.Context) error { return s.install(ctx, 1, "A") })
	env(map[string]string{"ORDER": "A B", "A_OK": "1", "A_TRY": "0", "B_OK": "1", "B_TRY": "0"})
	act("slot A", func(context.Context) error { return s.holds("A", 1) })

	act("hang", s.hang)
	env(map[string]string{"ORDER": "A B", "A_TRY": "1", "B_TRY": "0"})

	act("fall back", s.fallBack)
	env(map[string]string{"B_OK": "1", "B_TRY": "0"})
	act("slot B again", func(context.Context) error { return s.holds("B", 0) })
}
