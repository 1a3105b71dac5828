//go:build vm

package qemu_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/qemu"
)

// firmware is a machine on which OVMF finds nothing to boot and stays in its shell.
func firmware(ctx context.Context, t *testing.T, timeout time.Duration) *qemu.Machine {
	t.Helper()
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	m, err := qemu.Start(ctx, qemu.Config{Name: "firmware", MemMiB: 128, OVMFVars: filepath.Join(t.TempDir(), "vars.fd"), Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.PowerCut)
	return m
}

func TestBootPowerCut(t *testing.T) {
	m := firmware(t.Context(), t, 3*time.Minute)
	match, err := m.Expect(`BdsDxe: (loading|failed to load) (Boot\d+)`)
	if err != nil {
		t.Fatal(err)
	}
	if len(match) != 3 || !strings.HasPrefix(match[2], "Boot0") {
		t.Errorf("Expect = %q; want the submatches", match)
	}
	if m.Ended(0) {
		t.Fatal("machine has ended")
	}
	m.PowerCut()
	if err := m.Wait(); err != nil {
		t.Errorf("Wait after PowerCut = %v; want nil", err)
	}
	if got := m.End(); got != qemu.Killed {
		t.Errorf("End = %q; want %q", got, qemu.Killed)
	}
	if _, err := m.Expect(`never`); err == nil || !strings.Contains(err.Error(), "BdsDxe") {
		t.Errorf("Expect after the end = %v; want an error with the console", err)
	}
}

func TestBootTimeout(t *testing.T) {
	m := firmware(t.Context(), t, 4*time.Second)
	if _, err := m.Expect(`never`); !errors.Is(err, qemu.ErrTimeout) {
		t.Errorf("Expect = %v; want ErrTimeout", err)
	}
	if err := m.Wait(); !errors.Is(err, qemu.ErrTimeout) {
		t.Errorf("Wait = %v; want ErrTimeout", err)
	}
}

func TestBootCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := firmware(ctx, t, 3*time.Minute)
	cancel()
	if err := m.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v; want context.Canceled", err)
	}
}
