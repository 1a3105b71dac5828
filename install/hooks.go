package install

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/internal/program"
	"updater/update"
)

// HookError is a hook that failed or took too long.
type HookError struct {
	Hook     string // "pre-install", "post-install", "post-activate"
	Switched bool   // the new slot boots next all the same
	Err      error
}

func (e *HookError) Error() string { return fmt.Sprintf("the %s hook: %v", e.Hook, e.Err) }
func (e *HookError) Unwrap() error { return e.Err }

// Hint returns the next action.
func (e *HookError) Hint() string {
	if e.Switched {
		return "the new slot boots next all the same; do by hand what the hook was for, or run updater rollback"
	}
	return "see what the hook printed; it is named below [hooks] of the configuration"
}

// postInstall is the name of the hook that may find the new slot mounted.
const postInstall = "post-install"

// hooks calls the hooks of one install.
type hooks struct {
	config config.Hooks
	dev    *device.Device
	events Events
}

// hook returns the function that update calls at a point of an install; nil without a program.
func (h hooks) hook(name, path string) func(ctx context.Context, p update.Planned) error {
	if path == "" {
		return nil
	}
	return func(ctx context.Context, p update.Planned) error {
		env := []string{
			"UPDATER_HOOK=" + name, "UPDATER_SLOT=" + p.Slot, "UPDATER_ROLE=" + strings.Join(p.Roles, " "), "UPDATER_PRODUCT=" + p.Product, "UPDATER_VERSION=" + p.Version,
			"UPDATER_ROLLBACK_INDEX=" + strconv.FormatInt(p.RollbackIndex, 10), "UPDATER_IMAGE_BYTES=" + strconv.FormatInt(p.ImageBytes, 10),
			"UPDATER_SOURCE=" + h.dev.Source,
		}
		var parts []string
		for _, role := range p.Roles {
			if file, ok := h.dev.Config.FileRole(p.Slot, role); ok {
				parts = append(parts, file.String())
			} else if part, err := h.dev.Partition(p.Slot, role); err == nil {
				parts = append(parts, part.String())
			}
		}
		env = append(env, "UPDATER_PARTITION="+strings.Join(parts, " "))
		env = append(env, "UPDATER_BOOTED="+h.dev.Booted())
		if h.config.Mount && name == postInstall {
			dir, unmount, err := h.dev.MountSlot(p.Slot, p.Roles)
			if err != nil {
				return &HookError{Hook: name, Err: err}
			}
			defer func() {
				if err := unmount(); err != nil {
					h.events.Warn("unmounting slot %s after the hook: %v", p.Slot, err)
				}
			}()
			env = append(env, "UPDATER_MOUNT="+dir)
		}
		_, err := program.Run(ctx, program.Command{
			Argv: []string{path}, Env: env, Limit: time.Duration(h.config.Timeout), Line: func(l string) { h.events.Hook(name, l) },
		})
		if err != nil && ctx.Err() == nil {
			return &HookError{Hook: name, Err: err}
		}
		return err
	}
}

// activated calls the last hook. An interrupt does not end it: the switch has happened.
func (h hooks) activated(ctx context.Context, res *update.Result) error {
	run := h.hook("post-activate", h.config.PostActivate)
	if run == nil {
		return nil
	}
	err := run(context.WithoutCancel(ctx), update.Planned{
		Slot: res.Slot, Identity: res.Identity, Roles: res.Roles(), Product: res.Product, Version: res.Version, RollbackIndex: res.Index, ImageBytes: res.ImageBytes,
	})
	if e, ok := errors.AsType[*HookError](err); ok {
		e.Switched = true
	}
	return err
}
