package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"updater/device/health"
	"updater/internal/rig"
)

// check writes a health check.
func check(r *rig.Rig, name, script string) {
	r.Helper()
	r.Sh("mkdir -p health.d")
	r.Write("health.d/"+name, []byte("#!/bin/sh\n"+script+"\n"))
	if err := os.Chmod(r.Path("health.d/"+name), 0o755); err != nil {
		r.Fatal(err)
	}
}

// TestHealthReboot: a system that is not healthy marks its slot bad and restarts, one without a fallback stays, and a
// healthy one is left alone.
func TestHealthReboot(t *testing.T) {
	for _, c := range []struct {
		name, script, env string
		code              int
		restarts          bool
		next              string
	}{
		{"healthy", "exit 0", "", ExitDone, false, "B"},
		{"not healthy", "echo because; exit 1", "", ExitFailed, true, "A"},
		{"no fallback", "exit 1", "A_OK=0", ExitBootState, false, "B"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rig.New(t)
			r.Sh(`mcopy -n -o -i disk.img@@1M ::/grub/grubenv e; grub-editenv e set ORDER="B A" ` + c.env + `; mcopy -o -i disk.img@@1M e ::/grub/grubenv`)
			check(r, "10-app", c.script)
			restarted := false
			var out bytes.Buffer
			env := Env{Stdout: &out, Stderr: &out}
			err := runHealth(t.Context(), healthOptions{
				bootOptions: bootOptions{config: r.Path("config.toml"), booted: "B"}, dir: r.Path("health.d"), timeout: 5 * time.Second, every: time.Second, reboot: true,
				restart: func() error { restarted = true; return nil },
			}, env)
			if code := env.fail(err); code != c.code || restarted != c.restarts || r.Next() != c.next {
				t.Errorf("exit %d, restarted %v, slot %s is next; want %d, %v, %s\n%s", code, restarted, r.Next(), c.code, c.restarts, c.next, out.String())
			}
		})
	}
}

// TestHealthWatchdog: the watchdog is fed while the checks succeed, no longer when they fail, and again when they
// succeed again.
func TestHealthWatchdog(t *testing.T) {
	r := rig.New(t)
	check(r, "10-app", `[ ! -e "`+r.Path("sick")+`" ]`)
	ctx, stop := context.WithCancel(t.Context())
	var alive atomic.Pointer[func() bool]
	ended := make(chan error, 1)
	go func() {
		ended <- runHealth(ctx, healthOptions{
			dir: r.Path("health.d"), timeout: 20 * time.Second, every: 20 * time.Millisecond, watchdog: true,
			feed: func(fed func() bool, _ func(string, ...any)) { alive.Store(&fed) },
		}, Env{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
	}()
	want := func(fed bool) {
		t.Helper()
		for range 600 {
			if f := alive.Load(); f != nil && (*f)() == fed {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("the watchdog is fed: %v; want %v", !fed, fed)
	}
	want(true)
	r.Write("sick", nil)
	want(false)
	r.Sh("rm sick")
	want(true)
	stop()
	if err := <-ended; err == nil {
		t.Error("it ended without an error")
	}
}

// TestHealthExamples: the checks of examples succeed here.
func TestHealthExamples(t *testing.T) {
	var out, errs bytes.Buffer
	code := Run(t.Context(), []string{"health", "--json", "--dir", "../../examples/health/health.d"}, Env{Stdout: &out, Stderr: &errs})
	var r health.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || code != ExitDone || len(r.Checks) != 2 || !strings.Contains(r.Checks[0].Output, "KiB can be used") {
		t.Errorf("exit %d, %v: %s%s", code, err, out.String(), errs.String())
	}
}
