package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"updater/blockdev"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/target"
)

// rereadPatience outlasts udev, which looks at every new partition.
const rereadPatience = 10 * time.Second

// lineDevice is a target that is held exclusively and locked, so that udev and other updaters stay away.
type lineDevice struct {
	*blockdev.Device
	w    *blockdev.Writer
	lock io.Closer
}

func (d *lineDevice) Writer() medium.Writer { return d.w }
func (d *lineDevice) FitTable(sector int, grow bool) (bool, error) {
	fit, err := blockdev.FitGPT(d.Device, blockdev.GPTOptions{SectorSize: int64(sector), GrowLast: grow})
	return fit.Found, err
}
func (d *lineDevice) Close() error { return errors.Join(d.Device.Close(), d.lock.Close()) }

// Open implements line.Host.
func (l *station) Open(_ context.Context, d *target.Disk) (_ medium.Device, err error) {
	now, err := target.Host{}.ByPath(d.Path)
	if err != nil {
		return nil, err
	}
	was, _ := d.Key(d.Bus)
	key, _ := now.Key(now.Bus)
	if key != was || now.Bus != d.Bus {
		return nil, fmt.Errorf("%s: the disk changed since its selection (was %s, now %s)", d.Path, was, key)
	}
	lock, err := blockdev.LockDisk(d.Path, 2*time.Second)
	if err != nil {
		return nil, err
	}
	dev := &lineDevice{lock: lock}
	defer func() {
		if err != nil {
			if dev.Device != nil {
				_ = dev.Device.Close()
			}
			lock.Close()
		}
	}()
	if dev.Device, err = blockdev.OpenPath(d.Path, 0, 0, blockdev.Exclusive); err != nil {
		return nil, err
	}
	// The paced engine has no buffers of its own, which would count once for each target.
	dev.w, err = dev.NewWriter(blockdev.WriterOptions{Engine: blockdev.Paced})
	return dev, err
}

// Boot implements line.Host.
func (l *station) Boot(ctx context.Context, d *target.Disk, parts []plan.Placed) error {
	nodes, err := blockdev.RereadTable(d.Path, rereadPatience)
	if err != nil {
		return err
	}
	if nodes && len(parts) > 0 {
		if !(target.Host{}).KnowsPartitions(d) { // a kernel without a parser for GPT
			for _, p := range parts {
				if err := blockdev.AddPartition(d.Path, p.Number, p.Offset, p.Length); err != nil {
					return err
				}
			}
		}
		if err := (target.Host{}).CheckKernel(d, parts); err != nil {
			return err
		}
	}
	if l.plan.Config == "" {
		return nil
	}
	return l.setBoot(ctx, d.Path)
}

// light sets the lights of a state. A light that cannot be set is said, and no more: it decides nothing.
func (l *station) light(state string) {
	led, ok := l.plan.LEDs[state]
	if !ok {
		return
	}
	dir := filepath.Join(cmp.Or(l.env.leds, "/sys/class/leds"), led.Name)
	set := func(name, value string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			l.env.warn("light %s: %v", led.Name, err)
		}
	}
	if led.Trigger != "" {
		set("trigger", strings.TrimSpace(led.Trigger))
	}
	if led.Trigger == "" || led.Trigger == "none" {
		set("brightness", strconv.Itoa(led.Brightness))
	}
}
