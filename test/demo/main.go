package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := tell(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// tell runs the story and prints it. The artefacts stay in build/demo, so that a second run is quick.
func tell(ctx context.Context, w io.Writer) error {
	if missing := abdisk.Missing(); missing != nil {
		return fmt.Errorf("missing Debian packages: apt-get install %s", strings.Join(missing, " "))
	}
	if err := qemu.Available(); err != nil {
		return err
	}
	s, err := newStory(".", "build/demo", w)
	if err != nil {
		return err
	}
	begin := time.Now()
	s.say("Building kernel, images, keys, signed releases, initramfs and disk in build/demo")
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.say("    %5.1f s", time.Since(begin).Seconds())
	acts := []func(context.Context) error{
		s.bootFirst,
		s.cut,
		func(ctx context.Context) error { return s.install(ctx, 0, "B") },
		func(context.Context) error { return s.holds("B", 0) },
		s.bootSecond,
		func(ctx context.Context) error { return s.install(ctx, 1, "A") },
		func(context.Context) error { return s.holds("A", 1) },
		s.hang,
		s.fallBack,
		func(context.Context) error { return s.holds("B", 0) },
	}
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.say("\nWhat was shown, in %.0f s:", time.Since(begin).Seconds())
	for _, st := range s.steps {
		s.say("  %-36s %6.1f s  %s", st.what, st.took.Seconds(), st.evidence)
	}
	return nil
}

// holds compares a slot on the disk image with the images of the i-th release.
func (s *story) holds(slot string, i int) error {
	rootfs, _ := abdisk.SlotRange(slot)
	app, _ := abdisk.AppRange(slot)
	for start, image := range map[int64]string{rootfs: s.updates[i].rootfs, app: s.updates[i].app} {
		diff, err := s.differs(start, image)
		if err == nil && diff != "" {
			err = errors.New(diff)
		}
		if err != nil {
			return fmt.Errorf("slot %s does not hold %s: %w", slot, image, err)
		}
	}
	s.say("             both partitions of slot %s are byte for byte the images, their holes zero", slot)
	s.steps = append(s.steps, step{what: "slot " + slot + " compared with the images", evidence: "identical, holes are zero"})
	return nil
}

// newStory prepares the folders. root is the source tree, dir keeps the artefacts.
func newStory(root, dir string, w io.Writer) (*story, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	device, err := os.MkdirTemp(mkdir(dir), "device-")
	if err != nil {
		return nil, err
	}
	say := func(format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
	s := &story{
		root: root, dir: device, timeout: 10 * time.Minute, say: say,
		builder: &abdisk.Builder{Dir: dir, Updater: filepath.Join(root, "bin/updater"), Log: indent{w}},
	}
	if path := os.Getenv("DEMO_CONSOLE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return nil, err
		}
		s.console = f
	}
	return s, nil
}

// mkdir creates dir. Errors are left to the first use of dir.
func mkdir(dir string) string {
	_ = os.MkdirAll(dir, 0o755)
	return dir
}

// indent shifts lines of the builder to the right.
type indent struct{ w io.Writer }

func (i indent) Write(p []byte) (int, error) {
	_, err := fmt.Fprintf(i.w, "             %s\n", strings.TrimSpace(string(p)))
	return len(p), err
}
