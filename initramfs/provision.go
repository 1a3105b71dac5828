package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Provisioner is a [Device] that makes devices out of blank disks.
type Provisioner interface {
	// Provision works off a plan: an http or https URL, or a file on a mounted medium.
	Provision(ctx context.Context, plan string) error
}

// planFile is where a plan is on a medium.
const planFile = "updater/plan.toml"

// provision works off the plan that the command line names, or that is on a medium. The device's own disk may be blank.
func (r *runner) provision(ctx context.Context) error {
	p, ok := r.device.(Provisioner)
	if !ok {
		return errors.New("this initramfs cannot provision; use updater.mode=install or recover")
	}
	if r.URL != "" {
		return r.during(func() error { return p.Provision(ctx, r.URL) })
	}
	if err := os.MkdirAll(mediaDir, 0o755); err != nil {
		return err
	}
	for _, fs := range mediaTypes {
		r.loader.plug("fs-" + fs)
	}
	for deadline := time.Now().Add(updateTimeout); ; {
		blocks, err := Blocks()
		if err != nil {
			return err
		}
		for _, b := range blocks {
			if found, err := r.provisionFrom(ctx, p, b); found {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no medium with %s within %s, and no updater.url; there are %s", planFile, updateTimeout, names())
		}
		if err := r.events.Wait(r.loader, look); err != nil {
			return err
		}
	}
}

// provisionFrom works off the plan on a block device, while it is mounted read-only. A mounted disk is never a target.
func (r *runner) provisionFrom(ctx context.Context, p Provisioner, b Block) (found bool, err error) {
	if mount(b.Node) != nil {
		return false, nil
	}
	defer func() { err = errors.Join(err, unmount(b.Node)) }()
	path := filepath.Join(mediaDir, planFile)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	r.log("plan on %s", b.Node)
	return true, r.during(func() error { return p.Provision(ctx, path) })
}
