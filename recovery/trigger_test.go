package recovery_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/internal/rig"
	"updater/recovery"
)

// TestProvision: a plan is read only where the configuration allows it.
func TestProvision(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		ran := false
		d := &recovery.Device{Config: new(config.Config), Work: new(initramfs.Work), Line: func(context.Context, string) error { ran = true; return nil }}
		d.Config.Recovery.Provision = allowed
		err := d.Provision(t.Context(), "plan.toml")
		if _, refused := errors.AsType[*config.RequestError](err); refused == allowed || ran != allowed {
			t.Errorf("with provision = %v: %v, the plan was carried out: %v", allowed, err, ran)
		}
	}
}

func TestRecoveryConfig(t *testing.T) {
	for _, c := range []struct {
		table, want string // of the error
		trigger     initramfs.Trigger
	}{
		{table: `key = "F8"`, trigger: initramfs.Trigger{Key: 66}},
		{table: `key = "408"`, trigger: initramfs.Trigger{Key: 408}},
		{table: `gpio = { chip = "gpiochip1", line = 7, active_low = true, pull = "up" }`, trigger: initramfs.Trigger{GPIO: initramfs.GPIO{Chip: "gpiochip1", Line: 7, Low: true, Pull: "up"}}},
		{table: `key = "any"`, want: `recovery.key is "any"`},
		{table: `key = "4711"`, want: `recovery.key is "4711"`},
		{table: `gpio = { line = 7 }`, want: "expected chip"},
		{table: `gpio = { chip = "x", pull = "strong" }`, want: `pull "strong"`},
		{table: `gpio = { chip = "x", button = 1 }`, want: "button"},
		{table: `mode = "shell"`, want: `recovery.mode is "shell"`},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(strings.Replace(rig.Configs["grub"], "[boot]", "[recovery]\n"+c.table+"\n[boot]", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := device.LoadConfig(path, config.Build{})
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v; want %q", c.table, err, c.want)
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.table, err)
		case c.want == "" && recovery.Trigger(conf.Recovery) != c.trigger:
			t.Errorf("%s: %+v; want %+v", c.table, recovery.Trigger(conf.Recovery), c.trigger)
		}
	}
}
