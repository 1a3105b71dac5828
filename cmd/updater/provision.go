package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/internal/printable"
	"updater/provision/board"
	"updater/provision/keys"
	"updater/provision/line"
	"updater/provision/record"
	"updater/provision/station"
)

// provisionOptions are the flags.
type provisionOptions struct {
	station.Options
	json, plain bool
}

func newProvision(env Env) *cobra.Command {
	var o provisionOptions
	cmd := &cobra.Command{
		Use:   "provision --plan PLAN [flags]",
		Short: "Make devices out of blank disks, many at a time, and keep a record of each",
		Long: `provision writes what the plan says to every target: a partition table, signed
images, an identity of its own, the first boot state. The images are read once for
all targets; each is read back and gets its own verdict and its signed record.
Disks that are mounted, held or not named are never touched.

A plan that comes from an address, or with --config, has to be signed by the
configured keyring: PLAN.asc, PLAN.sig. docs/factory.md has a sample.

The exit code is 0 only when every target passed; else it is the one that the targets
share, or 1.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Plan == "" {
				return usagef("--plan is missing")
			}
			if !cmd.Flags().Changed("config") {
				o.ConfigPath = ""
			}
			return runProvision(cmd.Context(), o, env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Plan, "plan", "", "plan `FILE` or address")
	f.StringVar(&o.ConfigPath, "config", config.DefaultPath, "configuration `FILE` whose keyring signs the plan")
	f.StringArrayVar(&o.Targets, "target", nil, "disk `DEVICE` to write; may be repeated")
	f.StringArrayVar(&o.Ports, "port", nil, "bus path of a disk to write, with a name, such as `usb-1-1.2=slot3`; may be repeated")
	f.StringVar(&o.Token, "token", "", "token `FILE` of the factory key, to provision a device again")
	f.StringVar(&o.Operator, "operator", os.Getenv("USER"), "`NAME` for the record")
	f.BoolVar(&o.Check, "check", false, "only compare provisioned targets, as after a power cycle")
	f.BoolVar(&o.plain, "plain", false, "lines instead of a full-screen view")
	f.BoolVar(&o.json, "json", false, "print the results as JSON lines")
	cmd.AddCommand(newProvisionRecords(env), newProvisionToken(env))
	return cmd
}

// at completes the options of a station on this machine.
func (e Env) at(o station.Options) station.Options {
	o.Build, o.Inputs, o.Code, o.LEDs = e.build(), e.inputs(e.warn), code, e.leds
	o.Ask = station.Asker(e.Stdin, func(question string) { printable.Fprintf(e.Stderr, "updater: %s: ", question) })
	return o
}

func runProvision(ctx context.Context, o provisionOptions, env Env) error {
	s, err := station.Open(ctx, env.at(o.Options))
	if err != nil {
		return err
	}
	defer s.Close()
	b := new(board.Board)
	job, err := s.Job(ctx, b)
	if err != nil {
		return err
	}
	env.out.begin()
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	view := board.Show(b, board.Options{
		Out: env.Stderr, Keys: env.Stdin, Plain: o.plain || o.json || o.Inside,
		Quit: func() { quit(&interruptedError{cause: errQuit, began: true}) },
	})
	results, err := job.Run(ctx)
	for line.Together(results) != nil && view.Again(ctx.Done()) {
		more, bad := job.Again(ctx, results).Run(ctx)
		results, err = line.Latest(results, more), errors.Join(err, bad)
	}
	view.Stop()
	for _, r := range results {
		if o.json {
			env.doneJSON(r)
		} else {
			env.done("%s\n", r)
		}
	}
	if !o.json {
		env.done("%s\n", board.Totals(b.Tiles()))
	}
	err = errors.Join(err, s.Deliver(ctx))
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return errors.Join(err, line.Together(results))
}

var errQuit = errors.New("the operator has stopped the run")

func code(err error) int {
	code, _ := classify(err)
	return code
}

// newProvisionToken is the command of the holder of the factory key.
func newProvisionToken(env Env) *cobra.Command {
	var keyFile, serial string
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "token --key KEY --serial SERIAL",
		Short: "Sign a token that lets a provisioned device be provisioned again",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if keyFile == "" || serial == "" || valid <= 0 {
				return usagef("--key, --serial and a positive --valid are required")
			}
			key, err := keys.Load(keyFile)
			if err != nil {
				return err
			}
			token, err := record.Seal(record.Token{Kind: "token", Serial: serial, Expires: time.Now().Add(valid).UTC()}, key)
			if err != nil {
				return err
			}
			_, err = env.data().Write(token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "private factory key `FILE`, PKCS #8 PEM")
	f.StringVar(&serial, "serial", "", "`SERIAL` of the one device")
	f.DurationVar(&valid, "valid", 8*time.Hour, "how long the token is valid")
	return cmd
}
