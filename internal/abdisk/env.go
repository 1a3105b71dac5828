package abdisk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Env is the GRUB environment block on the ESP of a demo disk, read and written with mtools and grub-editenv while no machine runs.
type Env struct {
	Disk string // image file made by Builder.Disk
}

func (e Env) at() string { return fmt.Sprintf("%s@@%dM", e.Disk, espStart) }

// Read returns all variables.
func (e Env) Read(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := e.with(ctx, func(file string) error {
		list, err := command{}.run(ctx, "grub-editenv", file, "list")
		for line := range strings.Lines(list) {
			if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				out[k] = v
			}
		}
		return err
	})
	return out, err
}

// Set sets variables ("NAME=VALUE").
func (e Env) Set(ctx context.Context, assignments ...string) error {
	return e.with(ctx, func(file string) error {
		if _, err := (command{}).run(ctx, "grub-editenv", append([]string{file, "set"}, assignments...)...); err != nil {
			return err
		}
		_, err := command{}.run(ctx, "mcopy", "-o", "-i", e.at(), file, "::/grub/grubenv")
		return err
	})
}

// BootRecovery makes the next boot, and only the next, start the recovery entry.
func (e Env) BootRecovery(ctx context.Context) error { return e.Set(ctx, "next_entry=recovery") }

// with hands a copy of the environment block to f.
func (e Env) with(ctx context.Context, f func(file string) error) error {
	dir, err := os.MkdirTemp("", "grubenv")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "grubenv")
	if _, err := (command{}).run(ctx, "mcopy", "-n", "-i", e.at(), "::/grub/grubenv", file); err != nil {
		return fmt.Errorf("environment block of %s: %w", e.Disk, err)
	}
	if err := f(file); err != nil {
		return fmt.Errorf("environment block of %s: %w", e.Disk, err)
	}
	return nil
}

// SlotRange returns the byte range of slot "A" or "B" on a demo disk.
func SlotRange(slot string) (start, length int64) {
	if slot == "B" {
		return slotBStart << 20, slotMiB << 20
	}
	return slotAStart << 20, slotMiB << 20
}

// AppRange returns the byte range of the second role of slot "A" or "B" on a demo disk.
func AppRange(slot string) (start, length int64) {
	if slot == "B" {
		return appBStart << 20, appMiB << 20
	}
	return appAStart << 20, appMiB << 20
}
