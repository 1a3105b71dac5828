package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/blockdev"
	"updater/update"
)

// markPatience is how long a change of the boot state waits for the disk's lock: at boot, udev probes.
const markPatience = 5 * time.Second

// bootOptions are shared by the verbs that change the boot state.
type bootOptions struct{ config, booted string }

// change opens the device for a change of its boot state, and prints what change says on success.
func (o bootOptions) change(ctx context.Context, env Env, change func(ctx context.Context, d *device) (string, error)) error {
	config, err := LoadConfig(o.config)
	if err != nil {
		return err
	}
	dev, err := openWaiting(config, o.booted)
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, w := range dev.warnings {
		env.warn("%s", w)
	}
	said, err := change(ctx, dev)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, said)
	return err
}

// openWaiting opens the device for writing, waiting for a lock that is held for moments.
func openWaiting(config *Config, booted string) (*device, error) {
	for deadline := time.Now().Add(markPatience); ; {
		dev, err := openDevice(config, booted, blockdev.Exclusive)
		if !is[*blockdev.LockedError](err) || time.Now().After(deadline) {
			return dev, err
		}
	}
}

func (o *bootOptions) command(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
	cmd.Flags().StringVar(&o.config, "config", DefaultConfig, "device configuration `FILE`")
	cmd.Flags().StringVar(&o.booted, "booted", "", "slot `NAME` that counts as running, for a disk that no kernel booted from")
	return cmd
}

func newMark(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mark",
		Short: "Mark a slot good or bad",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o bootOptions
	cmd.AddCommand(
		o.command("good [SLOT]", "Mark the running slot good: it stays the boot loader's choice", argsN(0, 1), func(cmd *cobra.Command, args []string) error {
			return o.change(cmd.Context(), env, func(ctx context.Context, d *device) (string, error) {
				slot, err := d.slotOrBooted(ctx, args)
				if err != nil {
					return "", err
				}
				if err := d.backend.MarkGood(ctx, slot); err != nil {
					return "", bootError(slot, "marking it good", err)
				}
				return fmt.Sprintf("slot %s is good", slot), d.rememberGood(slot) // after it: no power cut raises the floor alone
			})
		}),
		o.command("bad [SLOT]", "Mark a slot bad: the boot loader no longer chooses it", argsN(0, 1), func(cmd *cobra.Command, args []string) error {
			return o.change(cmd.Context(), env, func(ctx context.Context, d *device) (string, error) {
				slot, err := d.slotOrBooted(ctx, args)
				if err != nil {
					return "", err
				}
				if err := d.backend.MarkBad(ctx, slot); err != nil {
					return "", bootError(slot, "marking it bad", err)
				}
				return fmt.Sprintf("slot %s is bad", slot), d.rememberBad(slot)
			})
		}),
	)
	return cmd
}

func newActivate(env Env) *cobra.Command {
	var o bootOptions
	n := 0
	cmd := o.command("activate SLOT", "Make a slot the boot loader's next choice", argsN(1, 1), func(cmd *cobra.Command, args []string) error {
		return o.change(cmd.Context(), env, func(ctx context.Context, d *device) (string, error) {
			if err := d.known(args[0]); err != nil {
				return "", err
			}
			count := n
			if !cmd.Flags().Changed("tries") {
				count = d.tries()
			} else if n < 1 {
				return "", usagef("--tries is %d, expected 1 or more", n)
			}
			return d.switchTo(ctx, args[0], count)
		})
	})
	cmd.Flags().IntVar(&n, "tries", 0, "boots that the slot gets to prove itself (default: as configured)")
	return cmd
}

func newRollback(env Env) *cobra.Command {
	var o bootOptions
	return o.command("rollback", "Make another bootable slot than the running one the next choice", noArgs, func(cmd *cobra.Command, _ []string) error {
		return o.change(cmd.Context(), env, func(ctx context.Context, d *device) (string, error) {
			slots, err := d.Slots(ctx)
			if err != nil {
				return "", bootError("", "reading it", err)
			}
			for _, s := range slots {
				if s.Bootable && !s.Booted && (!s.Next || slices.ContainsFunc(slots, func(o update.Slot) bool { return o.Booted })) {
					return d.switchTo(ctx, s.Name, d.tries())
				}
			}
			return "", bootError("", "rolling back", errors.New("no other slot is bootable"))
		})
	})
}

// switchTo activates a slot and reads the choice back.
func (d *device) switchTo(ctx context.Context, slot string, count int) (string, error) {
	if err := d.Activate(ctx, slot, count); err != nil {
		return "", bootError(slot, "activating it", err)
	}
	said := fmt.Sprintf("slot %s boots next, with %s", slot, tries(count))
	if d.backend.Caps().VolatileTry {
		said += ", unless the power fails before"
	}
	return said, nil
}

// slotOrBooted is the slot of the arguments, or the running one.
func (d *device) slotOrBooted(ctx context.Context, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], d.known(args[0])
	}
	booted, err := d.backend.Booted(ctx)
	if err == nil && booted == "" {
		err = usagef("no slot is running, as far as the kernel command line tells; name one, or say --booted")
	}
	return booted, err
}

func (d *device) known(slot string) error {
	if slices.Contains(d.config.slotNames(), slot) {
		return nil
	}
	return usagef("slot %s is not configured; there are %s", slot, strings.Join(d.config.slotNames(), ", "))
}

func bootError(slot, doing string, err error) error {
	if err == nil {
		return nil
	}
	return &update.BootError{Slot: slot, Doing: doing, Err: err}
}
