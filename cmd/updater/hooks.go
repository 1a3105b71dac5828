package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"updater/internal/program"
	"updater/update"
)

// HooksConfig is [hooks]: programs of the running system that an install calls. None is called in the initramfs unless
// initramfs says so, since its configuration is often the same file.
type HooksConfig struct {
	PreInstall   string   `toml:"pre_install"`   // before anything is written; its failure refuses the install
	PostInstall  string   `toml:"post_install"`  // after the read-back; its failure prevents the switch
	PostActivate string   `toml:"post_activate"` // after the switch; its failure is reported and undoes nothing
	Timeout      duration `toml:"timeout"`       // of each; 0 is 60 s
	Initramfs    bool     `toml:"initramfs"`
}

func (h *HooksConfig) paths() []*string {
	return []*string{&h.PreInstall, &h.PostInstall, &h.PostActivate}
}

// resolve makes relative paths count from the folder of the configuration.
func (h *HooksConfig) resolve(dir string) {
	for _, p := range h.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
		if abs, err := filepath.Abs(*p); *p != "" && err == nil {
			*p = abs // it is started in another folder
		}
	}
}

// hookError says that a hook failed, or took too long.
type hookError struct {
	hook     string // "pre-install", "post-install", "post-activate"
	switched bool   // the new slot boots next all the same
	err      error
}

func (e *hookError) Error() string { return fmt.Sprintf("the %s hook: %v", e.hook, e.err) }
func (e *hookError) Unwrap() error { return e.err }

// hooks calls the hooks of one install.
type hooks struct {
	config HooksConfig
	dev    *device
	source string
	out    *report
}

// hook returns what update is to call at a point of an install; nil without a program.
func (h hooks) hook(name, path string) func(ctx context.Context, p update.Planned) error {
	if path == "" {
		return nil
	}
	return func(ctx context.Context, p update.Planned) error {
		env := []string{
			"UPDATER_HOOK=" + name, "UPDATER_SLOT=" + p.Slot, "UPDATER_ROLE=" + p.Role, "UPDATER_PRODUCT=" + p.Product, "UPDATER_VERSION=" + p.Version,
			"UPDATER_ROLLBACK_INDEX=" + strconv.FormatInt(p.RollbackIndex, 10), "UPDATER_IMAGE_BYTES=" + strconv.FormatInt(p.ImageBytes, 10),
			"UPDATER_SOURCE=" + h.source,
		}
		if part, err := h.dev.slotPartition(p.Slot, p.Role); err == nil {
			env = append(env, "UPDATER_PARTITION="+part.String())
		}
		if booted, err := h.dev.backend.Booted(ctx); err == nil {
			env = append(env, "UPDATER_BOOTED="+booted)
		}
		_, err := program.Run(ctx, program.Command{
			Argv: []string{path}, Env: env, Limit: time.Duration(h.config.Timeout), Line: func(l string) { h.out.hook(name, l) },
		})
		if err != nil && ctx.Err() == nil {
			return &hookError{hook: name, err: err}
		}
		return err
	}
}

// activated calls the last hook. An interrupt comes too late for it: the switch has happened.
func (h hooks) activated(ctx context.Context, res *update.Result) error {
	run := h.hook("post-activate", h.config.PostActivate)
	if run == nil {
		return nil
	}
	err := run(context.WithoutCancel(ctx), update.Planned{
		Slot: res.Slot, Role: res.Role, Product: res.Product, Version: res.Version, RollbackIndex: res.Index, ImageBytes: res.ImageBytes,
	})
	if e, ok := errors.AsType[*hookError](err); ok {
		e.switched = true
	}
	return err
}
