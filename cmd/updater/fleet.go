package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/fleet"
	"updater/install"
	"updater/internal/printable"
)

// machine is a verb of the configured device that also prints for machines.
func (e Env) machine(use, short, long string, run func(ctx context.Context, c *config.Config, asJSON bool) error) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := e.config(path)
		if err != nil {
			return err
		}
		return run(cmd.Context(), c, asJSON)
	}}
	cmd.Flags().StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON lines")
	return cmd
}

func newCheck(env Env) *cobra.Command {
	return env.machine("check", "Ask the channel whether there is something newer for this device",
		`check fetches the channel that the configuration names, checks its signature and age, and says
which release is for this device now: exit 0 when there is one, and 3 with the reason when
there is none. It writes no slot. The newest channel is remembered, so that an older one is
refused later (exit 12). A device whose clock is not set reports the freshness as unknown.`, env.check)
}

// line prints v for machines, or a line for people.
func (e Env) line(asJSON bool, v any, format string, a ...any) error {
	if asJSON {
		return e.json(v)
	}
	_, err := printable.Fprintf(e.Stdout, format+"\n", a...)
	return err
}

func (e Env) check(ctx context.Context, c *config.Config, asJSON bool) error {
	v, err := fleet.Check(ctx, c, e.inputs(e.warn))
	if err != nil {
		return err
	}
	nothing := &fleet.NothingError{Verdict: v}
	if v.Entry == nil && !asJSON {
		return nothing
	}
	if err := e.line(asJSON, v, "%s", v.Reason); err != nil || v.Entry != nil {
		return err
	}
	return &reportedError{err: nothing}
}

type updateOptions struct {
	config                     string
	downloadOnly, reboot, json bool
}

func newUpdate(env Env) *cobra.Command {
	var o updateOptions
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Install what the channel has for this device",
		Long: `update does what check does and installs the release that is for this device, as install does.
Nothing to do is exit 3. It may run at any moment and be ended at any moment: the next run
goes on from what the slot holds. Before the switch the channel is asked again whether the
release was withdrawn. A release that fell back here is not tried again until the channel
raises its attempt.

--download-only leaves the switch to updater activate, in a maintenance window for example.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUpdate(cmd.Context(), o, env) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", config.DefaultPath, "device configuration `FILE`")
	f.BoolVar(&o.downloadOnly, "download-only", false, "write the inactive slot, and leave the switch to updater activate")
	f.BoolVar(&o.reboot, "reboot", false, "reboot after success, or when the newest release is installed and boots next already")
	f.BoolVar(&o.json, "json", false, "print events and the result as JSON lines on standard output")
	env.out.addProgress(f)
	return cmd
}

func runUpdate(ctx context.Context, o updateOptions, env Env) error {
	if o.downloadOnly && o.reboot {
		return usagef("--download-only and --reboot contradict each other")
	}
	out := newReport(env, o.json)
	c, err := env.config(o.config)
	if err != nil {
		return out.failed(err)
	}
	res, err := fleet.Update(ctx, fleet.Request{Config: c, DownloadOnly: o.downloadOnly}, env.inputs(out.Warn), out)
	if nothing, ok := errors.AsType[*fleet.NothingError](err); ok && o.reboot && nothing.Verdict.Waiting {
		out.waits(nothing)
		return restart(true, env)
	}
	return finish(out, res, err, o.reboot, env)
}

func newReportVerb(env Env) *cobra.Command {
	var now bool
	cmd := env.machine("report", "Show or send what the fleet's server was not told yet",
		`report lists the reports that wait: one for a release that was marked good, for one that fell
back, and for an install that failed. --now sends them to report.url and forgets those that
the server has taken, with a status of 200 to 299. It is safe to repeat: a report has the
same key each time. Exit 3 when nothing waits. At most 8 wait; the oldest makes room.`,
		func(ctx context.Context, c *config.Config, asJSON bool) error {
			if now {
				return sendReports(ctx, c, env)
			}
			return listReports(c, asJSON, env)
		})
	cmd.Flags().BoolVar(&now, "now", false, "send them")
	return cmd
}

func sendReports(ctx context.Context, c *config.Config, env Env) error {
	sent, err := fleet.Deliver(ctx, c, env.inputs(env.warn))
	if sent > 0 {
		env.done("%d reports sent\n", sent)
	}
	return err
}

func listReports(c *config.Config, asJSON bool, env Env) error {
	list, err := fleet.Pending(c)
	for _, r := range list {
		err = errors.Join(err, env.line(asJSON, r, "%s  %s  version %s, install %d  %s", timeText(r.Time), r.Outcome, r.Version, r.Install, r.Detail))
	}
	return err
}

func newScrub(env Env) *cobra.Command {
	var repair bool
	cmd := env.machine("scrub", "Compare the slots with the signed documents of what was installed",
		`scrub reads every slot from the medium and compares it with the signed documents that the state
store keeps. A damaged slot ends with exit 14; unless it runs, it is marked bad, since it is no
release to fall back to. --repair writes one that was good again, from the running slot or from
where it was installed from, and makes it the fallback. A slot that is mounted read-write, or of
which no document is kept, is unknown. Run it when the device is idle.`,
		func(ctx context.Context, c *config.Config, asJSON bool) error {
			list, err := install.Scrub(ctx, c, repair, env.inputs(env.warn))
			for _, s := range list {
				err = errors.Join(err, env.line(asJSON, s, "slot %s: %s  %s", s.Slot, s.Result, s.Detail))
			}
			return err
		})
	cmd.Flags().BoolVar(&repair, "repair", false, "write a damaged slot again that was good")
	return cmd
}

func newServe(env Env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Offer the releases of the good slots to other devices",
		Long: `serve answers HTTP on serve.listen of the configuration, until it is ended: other devices install
http://ADDRESS/IDENTITY/release.toml, or the image /IDENTITY/ROLE.img, with the identity that
updater check --json or updater status --json shows. What differs from its signed checksum does
not leave the device. It writes nothing. updater-serve.service is the unit for it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.config(path)
			if err == nil {
				err = fleet.Serve(cmd.Context(), c, func(format string, a ...any) { env.done(format+"\n", a...) })
			}
			return err
		},
	}
	cmd.Flags().StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	return cmd
}
