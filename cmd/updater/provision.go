package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/install"
	"updater/provision/keys"
	"updater/provision/line"
	"updater/provision/record"
)

type provisionOptions struct {
	plan, config    string
	targets, ports  []string
	token, operator string
	check, json     bool
	plain           bool

	inside     bool                        // the initramfs, whose spool does not outlive it, and whose disks may still be coming up
	network    func(context.Context) error // brings it up; nil where it is up
	configured *config.Config              // of the initramfs, which was read already
}

// reach brings the network up when it is needed.
func (o provisionOptions) reach(ctx context.Context, needed bool) error {
	if !needed || o.network == nil {
		return nil
	}
	return o.network(ctx)
}

func newProvision(env Env) *cobra.Command {
	var o provisionOptions
	cmd := &cobra.Command{
		Use:   "provision --plan PLAN [flags]",
		Short: "Make devices out of blank disks, many at a time, and keep a record of each",
		Long: `provision writes what the plan says to every target: a partition table, signed
images, an identity of its own, the first boot state. The images are read once for
all targets; each is read back and gets its own verdict and its signed record.
Disks that are mounted, held, or not named are never touched.

A plan that comes from an address, or with --config, has to be signed by the
configured keyring: PLAN.asc, PLAN.sig. docs/factory.md has a sample.

The exit code is 0 only when every target passed; else it is the one that the targets
share, or 1.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.plan == "" {
				return usagef("--plan is missing")
			}
			if !cmd.Flags().Changed("config") {
				o.config = ""
			}
			return runProvision(cmd.Context(), o, env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.plan, "plan", "", "plan `FILE` or address")
	f.StringVar(&o.config, "config", config.DefaultPath, "configuration `FILE` whose keyring signs the plan")
	f.StringArrayVar(&o.targets, "target", nil, "disk `DEVICE` to write; may be repeated")
	f.StringArrayVar(&o.ports, "port", nil, "bus path of a disk to write, with a name, such as `usb-1-1.2=slot3`; may be repeated")
	f.StringVar(&o.token, "token", "", "token `FILE` of the factory key, to provision a device again")
	f.StringVar(&o.operator, "operator", os.Getenv("USER"), "`NAME` for the record")
	f.BoolVar(&o.check, "check", false, "only compare provisioned targets, as after a power cycle")
	f.BoolVar(&o.plain, "plain", false, "lines instead of a full-screen view")
	f.BoolVar(&o.json, "json", false, "print the results as JSON lines")
	cmd.AddCommand(newProvisionRecords(env), newProvisionToken(env))
	return cmd
}

func runProvision(ctx context.Context, o provisionOptions, env Env) error {
	l, err := loadLine(ctx, o, env)
	if err != nil {
		return err
	}
	defer l.from.Close()
	targets := l.targets(ctx)
	if len(targets) == 0 {
		return usagef("no target: name one with --target or --port, or list them in the plan")
	}
	if err := l.loadPayloads(ctx); err != nil {
		return err
	}
	job, err := l.job(ctx, targets)
	if err != nil {
		return err
	}
	l.light("working")
	view := newProvisionView(env, job.Board, o.plain || o.json)
	results, err := line.Run(ctx, job, targets)
	view.stop()
	l.light(lightOf(results))
	for _, r := range results {
		if o.json {
			err = errors.Join(err, env.json(r))
		} else {
			fmt.Fprintln(env.Stdout, resultLine(r))
		}
	}
	err = errors.Join(err, l.deliver(ctx))
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return errors.Join(err, together(results))
}

// lightOf is the state of the lights after a run.
func lightOf(results []line.Result) string {
	for _, r := range results {
		if r.Verdict != record.Pass {
			return "fail"
		}
	}
	return "pass"
}

// unitsError says that not all units passed.
type unitsError struct {
	failed, all int
	code        int
}

func (e *unitsError) Error() string {
	return fmt.Sprintf("%d of %d targets did not pass", e.failed, e.all)
}

// together is the error of a run, nil only when every unit passed. Its code is the one that all failed units share.
func together(results []line.Result) error {
	e := &unitsError{all: len(results)}
	for _, r := range results {
		if r.Verdict == record.Pass {
			continue
		}
		if e.failed++; e.failed == 1 {
			e.code = r.Code
		} else if e.code != r.Code {
			e.code = ExitFailed
		}
	}
	if e.failed == 0 {
		return nil
	}
	return e
}

func code(err error) int {
	code, _ := classify(err)
	return code
}

// newProvisionToken makes the command of whoever holds the factory key.
func newProvisionToken(env Env) *cobra.Command {
	var keyFile, serial string
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "token --key KEY --serial SERIAL",
		Short: "Sign a token that lets a provisioned device be provisioned again",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if keyFile == "" || serial == "" || valid <= 0 {
				return usagef("--key, --serial and a positive --valid are needed")
			}
			key, err := readKey(keyFile)
			if err != nil {
				return err
			}
			token, err := record.Seal(record.Token{Kind: "token", Serial: serial, Expires: time.Now().Add(valid).UTC()}, key)
			if err != nil {
				return err
			}
			_, err = env.Stdout.Write(token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "private factory key `FILE`, PKCS #8 PEM")
	f.StringVar(&serial, "serial", "", "`SERIAL` of the one device")
	f.DurationVar(&valid, "valid", 8*time.Hour, "how long the token is valid")
	return cmd
}

// readKey reads a private key.
func readKey(path string) (crypto.Signer, error) {
	data, err := install.ReadFile(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := keys.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	return key, nil
}
