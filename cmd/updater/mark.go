package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/config"
	"updater/fleet"
)

// bootOptions are shared by the verbs that read or change the boot state.
type bootOptions struct {
	config, booted string
	json           bool
}

// changed is the result of a change of the boot state.
type changed struct {
	Msg    string         `json:"msg"`
	Status *device.Status `json:"status,omitempty"` // after it; nil when it could not be read again
}

// change opens the device for a change of its boot state, and prints what change returns on success.
func (o bootOptions) change(ctx context.Context, env Env, change func(d *device.Device) (string, error)) error {
	defer env.answering()()
	c, err := env.config(o.config)
	if err != nil {
		return err
	}
	return o.changeBy(ctx, c, env, change)
}

// changeBy is change with a configuration that was read before.
func (o bootOptions) changeBy(ctx context.Context, c *config.Config, env Env, change func(d *device.Device) (string, error)) error {
	dev, err := device.Open(c, device.Options{Purpose: device.Change, Booted: o.booted})
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, w := range dev.Warnings() {
		if !w.New {
			env.warn("%s", w.Text)
		}
	}
	env.out.begin()
	text, err := change(dev)
	if err != nil {
		return err
	}
	if !o.json {
		env.done("%s\n", text)
		return nil
	}
	s, err := dev.Status(ctx)
	if err != nil {
		env.warn("%v", err)
	}
	env.doneJSON(changed{Msg: text, Status: s})
	return nil
}

func (o *bootOptions) command(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
	cmd.Flags().StringVar(&o.config, "config", config.DefaultPath, "device configuration `FILE`")
	cmd.Flags().StringVar(&o.booted, "booted", "", "slot `NAME` that counts as running, for a disk that no kernel booted from")
	cmd.Flags().BoolVar(&o.json, "json", false, "print as JSON")
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
	add := func(use, short, word string, mark func(d *device.Device, ctx context.Context, slot string) error) {
		cmd.AddCommand(o.command(use, short, argsN(0, 1), func(cmd *cobra.Command, args []string) error {
			return o.change(cmd.Context(), env, func(d *device.Device) (string, error) {
				slot, err := d.SlotOrBooted(first(args))
				if err != nil {
					return "", err
				}
				text := fmt.Sprintf("slot %s is %s", slot, word)
				if word == "bad" && slot == d.Booted() {
					text += "; it is the running one, so installs are refused until it is marked good"
				}
				return text, mark(d, cmd.Context(), slot)
			})
		}))
	}
	add("good [SLOT]", "Mark the running slot good: it stays the boot loader's choice", "good", (*device.Device).MarkGood)
	add("bad [SLOT]", "Mark a slot bad: the boot loader no longer chooses it", "bad", (*device.Device).MarkBad)
	return cmd
}

// first is the first argument, "" without any.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func newActivate(env Env) *cobra.Command {
	var o bootOptions
	var offline bool
	n := 0
	cmd := o.command("activate SLOT", "Make a slot the boot loader's next choice", argsN(1, 1), func(cmd *cobra.Command, args []string) error {
		c, err := env.config(o.config)
		if err == nil {
			a := fleet.Activation{Config: c, Slot: args[0], Booted: o.booted, Offline: offline}
			err = fleet.MayActivate(cmd.Context(), a, env.inputs(env.warn))
		}
		if err != nil {
			return err
		}
		defer env.answering()()
		return o.changeBy(cmd.Context(), c, env, func(d *device.Device) (string, error) {
			if err := d.Known(args[0]); err != nil {
				return "", err
			}
			count := d.Tries()
			if cmd.Flags().Changed("tries") {
				if count = n; n < 1 {
					return "", usagef("--tries is %d, expected 1 or more", n)
				}
			}
			return switched(d, args[0], count), d.SwitchTo(cmd.Context(), args[0], count)
		})
	})
	cmd.Long = `activate makes a slot boot next, for a number of tries. On a device that follows a channel, a
slot that was only downloaded (updater update --download-only) is first compared with its
signed documents, and the channel is asked whether the release was withdrawn.`
	cmd.Flags().BoolVar(&offline, "offline", false, "do not ask the channel whether the release was withdrawn")
	cmd.Flags().IntVar(&n, "tries", 0, "boots that the slot gets to prove itself (default: as configured)")
	return cmd
}

func newRollback(env Env) *cobra.Command {
	var o bootOptions
	return o.command("rollback", "Make another bootable slot than the running one the next choice", noArgs, func(cmd *cobra.Command, _ []string) error {
		return o.change(cmd.Context(), env, func(d *device.Device) (string, error) {
			slot, err := d.Rollback(cmd.Context())
			return switched(d, slot, d.Tries()), err
		})
	})
}

// switched is the result of a switch.
func switched(d *device.Device, slot string, count int) string {
	text := fmt.Sprintf("slot %s boots next, with %s", slot, tries(count))
	if d.VolatileTry() {
		text += ", unless the power fails before"
	}
	return text
}
