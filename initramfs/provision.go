package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Provisioner is a [Device] that can provision blank disks.
type Provisioner interface {
	// Provision carries out the plan at an http or https URL or at a path on a mounted medium. The plan is unverified.
	Provision(ctx context.Context, plan string) error
}

// planFile is the path of a plan on a medium.
const planFile = "updater/plan.toml"

// provision carries out the plan at the URL of the command line, or the first plan on a medium. The device's own disk may be
// blank.
func (r *runner) provision(ctx context.Context) error {
	p, ok := r.device.(Provisioner)
	if !ok {
		return errors.New("this initramfs does not support provisioning; use updater.mode=install or recover")
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
			return fmt.Errorf("no medium with %s found within %s and updater.url is not set; block devices: %s", planFile, updateTimeout, names(""))
		}
		if err := r.wait(look); err != nil {
			return err
		}
	}
}

// provisionFrom carries out the plan on a block device, which stays mounted read-only meanwhile and is therefore never a
// target.
func (r *runner) provisionFrom(ctx context.Context, p Provisioner, b Block) (found bool, err error) {
	if mount(b.Node) != nil {
		return false, nil
	}
	defer func() { err = errors.Join(err, unmount(b.Node)) }()
	path := filepath.Join(mediaDir, planFile)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	r.log("plan on %s: %s", b.Node, planFile)
	return true, r.during(func() error { return p.Provision(ctx, path) })
}
