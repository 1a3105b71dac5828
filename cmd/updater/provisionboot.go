package main

import (
	"context"
	"fmt"
	"slices"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/update"
)

// setBoot makes the plan's slot the first choice of the boot loader, the other slots that the plan writes the next ones, and those that hold no
// image no choice at all. A whole-disk image keeps its own state for the others.
func (l *station) setBoot(ctx context.Context, disk string) error {
	c, err := config.LoadOther(l.plan.Config, device.Backends())
	if err != nil {
		return fmt.Errorf("the plan: %w", err)
	}
	c.Build = l.env.build()
	first, others := "", []string{}
	for _, s := range c.Slot {
		switch {
		case !l.written(s):
		case l.plan.Slot == "" && first == "" || s.Name == l.plan.Slot:
			first = s.Name
		case l.plan.Image == nil:
			others = append(others, s.Name)
		}
	}
	if first == "" {
		return usagef("plan %s: %w", l.o.plan, errSlots)
	}
	dev, err := device.OpenTarget(c, disk, l.o.inside)
	if err != nil {
		return fmt.Errorf("the plan's configuration %s: %w", l.plan.Config, err)
	}
	defer dev.Close()
	if l.plan.Environment != "" {
		text, err := install.ReadFile(l.plan.Environment, device.MaxEnvironment)
		if err != nil {
			return fmt.Errorf("reading the initial environment: %w", err)
		}
		if err := dev.CreateEnvironment(string(text)); err != nil {
			return fmt.Errorf("plan %s: %w", l.o.plan, err)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(c.Slot), l.written)
	if err := dev.SetChoice(ctx, first, others, rest); err != nil {
		return err
	}
	return l.remember(dev)
}

// remember fills the device's state store with what the slots of a layout hold, where it is on the target.
func (l *station) remember(dev *device.Device) error {
	if l.plan.Image != nil || !dev.HasStore() {
		return nil
	}
	for _, s := range dev.Config.Slot {
		for _, role := range s.Roles() {
			i := slices.IndexFunc(l.payloads, func(p *medium.Payload) bool { return s.Partitions[role] == "PARTLABEL="+p.Partition })
			if i < 0 {
				continue
			}
			if err := dev.Record(l.payloads[i].Doc.Record(s.Name, role, update.OutcomeInstalled, dev.Now())); err != nil {
				return err
			}
			files := l.signed[l.payloads[i].Partition]
			if err := dev.KeepDocument(s.Name, role, files.UnverifiedBmap, files.UnverifiedSig); err != nil {
				l.env.warn("a recovery of this device cannot tell whether slot %s is intact: %v", s.Name, err)
			}
		}
	}
	return nil
}

// written reports whether a plan writes every partition of a slot; a whole-disk image contains all.
func (l *station) written(s config.Slot) bool {
	if l.plan.Image != nil {
		return true
	}
	for _, spec := range s.Partitions {
		if !slices.ContainsFunc(l.plan.Partition, func(p plan.Partition) bool { return p.Image != "" && spec == "PARTLABEL="+p.Name }) {
			return false
		}
	}
	return true
}
