package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/install"
	"updater/internal/atomicfile"
	"updater/internal/printable"
	"updater/release"
	"updater/verify"
)

// channelName is the document of a channel in the current folder.
const channelName = "channel.toml"

func newChannel(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "channel",
		Short: "Publish releases: the newest ones and the devices that may take them",
		Long: `A channel is one document that lists the releases of a product. These commands keep the
file; plain gpg signs it. A device never accepts an older one than it has seen, so the
time of creation only grows.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newChannelCreate(env), newChannelAdd(env), newChannelWithdraw(env), newChannelRenew(env), newChannelInfo(env), newChannelVerify(env))
	return cmd
}

// channelFile is the channel that a command changes.
type channelFile struct {
	path  string
	valid time.Duration
	json  bool
}

func (o *channelFile) AddFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.path, "file", "f", channelName, "document `FILE`")
	f.DurationVar(&o.valid, "valid", 7*24*time.Hour, "`TIME` until devices refuse it as stale, such as 168h")
	f.BoolVar(&o.json, "json", false, "print the channel as JSON")
}

// change rewrites the document with a new time of creation and prints it.
func (o channelFile) change(env Env, change func(*release.Channel) (*release.Channel, error)) error {
	c, err := readChannel(o.path)
	if err != nil {
		return err
	}
	if c, err = change(c); err != nil {
		return err
	}
	return o.write(env, c)
}

func (o channelFile) write(env Env, c *release.Channel) error {
	now, err := creationTime()
	if err != nil {
		return err
	}
	if o.valid < time.Second {
		return usagef("--valid is %s, expected a second or more", o.valid)
	}
	if c, err = c.Renew(now, o.valid); err != nil {
		return err
	}
	if err := atomicfile.Write(o.path, c.Encode(), 0o644); err != nil {
		return err
	}
	view := c.Contents()
	if o.json {
		return env.json(view)
	}
	printChannel(env.Stdout, view)
	env.done("written to %s; sign it: gpg --armor --detach-sign %s\n", o.path, o.path)
	return nil
}

// creationTime is SOURCE_DATE_EPOCH, else now.
func creationTime() (time.Time, error) {
	t, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"))
	if t.IsZero() {
		t = time.Now().UTC().Truncate(time.Second)
	}
	return t, err
}

func readChannel(path string) (*release.Channel, error) {
	return install.ParseUnverified(path, release.TypeChannel, release.ParseChannel)
}

func newChannelCreate(env Env) *cobra.Command {
	var o channelFile
	var product, name string
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a channel without releases",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := os.Stat(o.path); err == nil {
				return usagef("%s exists; a device would not accept a channel that begins again", o.path)
			}
			now, err := creationTime()
			if err != nil {
				return err
			}
			before := now.Add(-time.Second) // write renews it
			c, err := release.NewChannel(release.ChannelContents{Product: product, Channel: name, Created: before, Expires: now})
			if err != nil {
				return usagef("%w", err)
			}
			return o.write(env, c)
		},
	}
	o.AddFlags(cmd)
	cmd.Flags().StringVar(&product, "product", "", "product `NAME` of the devices it is for")
	cmd.Flags().StringVar(&name, "name", "stable", "`NAME` of the channel")
	return cmd
}

type channelAddOptions struct {
	channelFile
	publication release.Publication
	rollout     release.Rollout
	start       string
}

func newChannelAdd(env Env) *cobra.Command {
	var o channelAddOptions
	cmd := &cobra.Command{
		Use:   "add [flags] RELEASE",
		Short: "Add a release, or change how it is offered",
		Long: `add appends RELEASE, a document or a folder that holds release.toml, to the channel. It
checks the document and its block maps; the signature is checked by channel verify. For
a release that the channel has already, options replace what was there, and it is not
withdrawn any more.

--percent 5 --hours 72 offers it to 5 % of the devices at first and to all of them after
72 hours; with --hours 0 it stays at 5 %. Without --percent every device may take it.`,
		Args: argsN(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("percent") || cmd.Flags().Changed("hours") || o.start != "" {
				o.publication.Rollout = &o.rollout
			}
			return o.run(releasePath(args), env)
		},
	}
	o.AddFlags(cmd)
	f := cmd.Flags()
	f.Int64Var(&o.publication.FromIndex, "from-index", 0, "lowest rollback index `N` that may take it; lower ones take an earlier release first")
	f.Int64Var(&o.publication.Attempt, "attempt", 0, "number `N` of the attempt; raised, devices on which it failed try again")
	f.Int64Var(&o.rollout.Percent, "percent", 100, "share `N` of the devices at the start, in per cent")
	f.Int64Var(&o.rollout.Hours, "hours", 0, "`HOURS` in which the share grows to all devices; 0 holds it")
	f.StringVar(&o.start, "start", "", "start of the rollout, RFC 3339 `TIME` (default: now)")
	return cmd
}

func (o *channelAddOptions) run(path string, env Env) (err error) {
	if o.rollout.Start, err = creationTime(); err != nil {
		return err
	}
	if o.start != "" {
		if o.rollout.Start, err = time.Parse(time.RFC3339, o.start); err != nil {
			return usagef("--start: %w", err)
		}
	}
	r, err := install.CheckPublished(path)
	if err != nil {
		return err
	}
	if o.publication.Path, err = release.Relative(filepath.Dir(o.path), path); err != nil {
		return err
	}
	return o.change(env, func(c *release.Channel) (*release.Channel, error) {
		c, err := c.With(r, o.publication)
		if e, ok := errors.AsType[*release.SyntaxError](err); ok {
			return nil, usagef("%w", e)
		}
		return c, err
	})
}

func newChannelWithdraw(env Env) *cobra.Command {
	var o channelFile
	cmd := &cobra.Command{
		Use:   "withdraw [flags] VERSION",
		Short: "Offer a release no longer, by its version or identity",
		Args:  argsN(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			return o.change(env, func(c *release.Channel) (*release.Channel, error) {
				c, n, err := c.Withdraw(args[0])
				if err == nil && n == 0 {
					err = usagef("the channel has no release with the version or identity %q", args[0])
				}
				return c, err
			})
		},
	}
	o.AddFlags(cmd)
	return cmd
}

func newChannelRenew(env Env) *cobra.Command {
	var o channelFile
	cmd := &cobra.Command{
		Use:   "renew [flags]",
		Short: "Move the dates of a channel: it is still current",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			return o.change(env, func(c *release.Channel) (*release.Channel, error) { return c, nil })
		},
	}
	o.AddFlags(cmd)
	return cmd
}

// printChannel relies on the texts of a channel being printable.
func printChannel(w io.Writer, v release.ChannelContents) {
	printable.Fprintf(w, "channel %s of %s, created %s, expires %s\n", v.Channel, v.Product, timeText(v.Created), timeText(v.Expires))
	for _, e := range v.Releases {
		printable.Fprintf(w, "release %s, rollback index %d, %s, identity %s", e.Version, e.RollbackIndex, e.Path, e.Identity)
		if e.FromIndex > 0 {
			printable.Fprintf(w, ", from index %d", e.FromIndex)
		}
		if e.Attempt > 1 {
			printable.Fprintf(w, ", attempt %d", e.Attempt)
		}
		if r := e.Rollout; r != nil {
			printable.Fprintf(w, ", %d %% from %s", r.Percent, timeText(r.Start))
			if r.Hours > 0 {
				printable.Fprintf(w, ", all after %d hours", r.Hours)
			}
		}
		if e.Withdrawn {
			fmt.Fprint(w, ", withdrawn")
		}
		fmt.Fprintln(w)
	}
	if k := v.Keyring; k.Number != 0 {
		printable.Fprintf(w, "keyring %d %s\n", k.Number, k.Path)
	}
}

func newChannelInfo(env Env) *cobra.Command {
	var o channelFile
	cmd := &cobra.Command{
		Use:   "info [flags]",
		Short: "Show what a channel says; does not check its signature",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := readChannel(o.path)
			if err != nil {
				return err
			}
			if o.json {
				return env.json(c.Contents())
			}
			printChannel(env.Stdout, c.Contents())
			_, err = fmt.Fprintln(env.Stdout, "the signature was not checked; updater channel verify does that")
			return err
		},
	}
	cmd.Flags().StringVarP(&o.path, "file", "f", channelName, "document `FILE`")
	cmd.Flags().BoolVar(&o.json, "json", false, "print as JSON")
	return cmd
}

type channelVerifyOptions struct {
	path, config, sig string
	keyring           []string
	json              bool
}

// channelVerdict is a channel that was accepted, with every release in it.
type channelVerdict struct {
	Signers     []verify.Signer         `json:"signers"`
	TrustedTime time.Time               `json:"trusted_time"`
	Channel     release.ChannelContents `json:"channel"`
}

func newChannelVerify(env Env) *cobra.Command {
	var o channelVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify [flags]",
		Short: "Check the signatures of a channel and of every release in it",
		Long: `verify checks the document of the channel and of each release that is not withdrawn: the
signatures by keys that may sign this type, and that each release is what the channel says.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), env) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.path, "file", "f", channelName, "document `FILE`")
	f.StringVar(&o.config, "config", config.DefaultPath, "device configuration `FILE`, whose [[trust.key]] tables say which key may sign channels")
	f.BoolVar(&o.json, "json", false, "print as JSON")
	f.StringVar(&o.sig, "sig", "", "detached signature `FILE` (default: beside the document, or in it)")
	f.StringArrayVar(&o.keyring, "keyring", nil, "certificate file or folder `PATH`, instead of the configured ones; may be repeated")
	return cmd
}

func (o channelVerifyOptions) run(ctx context.Context, env Env) error {
	r := install.VerifyChannelRequest{Keyring: o.keyring, Path: o.path, Signature: o.sig}
	var err error
	if r.Config, err = env.config(o.config); err != nil {
		return err
	}
	v, err := install.VerifyChannel(ctx, r, env.inputs(env.warn))
	if err != nil {
		return err
	}
	if o.json {
		return env.json(channelVerdict{Signers: v.Signers, TrustedTime: v.TrustedTime, Channel: v.Channel.Contents()})
	}
	printable.Fprintf(env.Stdout, "trusted: signed by %s\n", signers(v.Signers))
	printChannel(env.Stdout, v.Channel.Contents())
	_, err = fmt.Fprintln(env.Stdout, "the releases match")
	return err
}
