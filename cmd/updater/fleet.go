package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/fleet"
	"updater/internal/printable"
)

func newCheck(env Env) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Ask the channel whether there is something newer for this device",
		Long: `check fetches the channel that the configuration names, checks its signature and age, and says
which release is for this device now: exit 0 when there is one, and 3 with the reason when
there is none. It writes no slot. The newest channel is remembered, so that an older one is
refused later (exit 12). A device whose clock is not set reports the freshness as unknown.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheck(cmd.Context(), path, asJSON, env) },
	}
	cmd.Flags().StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func runCheck(ctx context.Context, path string, asJSON bool, env Env) error {
	c, err := env.config(path)
	if err != nil {
		return err
	}
	v, err := fleet.Check(ctx, c, env.inputs(env.warn))
	if err != nil {
		return err
	}
	if v.Freshness == fleet.FreshUnknown {
		env.warn("the clock is not set, so the freshness of the channel is unknown; it was created at %s", timeText(v.Created))
	}
	if asJSON {
		if err := env.json(v); err != nil {
			return err
		}
	}
	switch nothing := (&fleet.NothingError{Verdict: v}); {
	case v.Entry == nil && asJSON:
		return &reportedError{err: nothing}
	case v.Entry == nil:
		return nothing
	case asJSON:
		return nil
	}
	_, err = printable.Fprintf(env.Stdout, "%s\n", v.Reason)
	return err
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
	var path string
	var now, asJSON bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Show or send what the fleet's server was not told yet",
		Long: `report lists the reports that wait: one for a release that was marked good, for one that fell
back, and for an install that failed. --now sends them to report.url and forgets those that
the server has taken, with a status of 200 to 299. It is safe to repeat: a report has the
same key each time. Exit 3 when nothing waits. At most 8 wait; the oldest makes room.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.config(path)
			if err != nil {
				return err
			}
			if now {
				return sendReports(cmd.Context(), c, env)
			}
			return listReports(c, asJSON, env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	f.BoolVar(&now, "now", false, "send them")
	f.BoolVar(&asJSON, "json", false, "print the reports as JSON lines, as they are sent")
	return cmd
}

// errNoReports is a result of updater report.
var errNoReports = errors.New("nothing to do: no report waits")

func sendReports(ctx context.Context, c *config.Config, env Env) error {
	sent, err := fleet.Deliver(ctx, c, env.inputs(env.warn))
	if sent > 0 {
		env.done("%d reports sent\n", sent)
	} else if err == nil {
		return errNoReports
	}
	return err
}

func listReports(c *config.Config, asJSON bool, env Env) error {
	list, err := fleet.Pending(c)
	if err == nil && len(list) == 0 {
		err = errNoReports
	}
	if err != nil {
		return err
	}
	for _, r := range list {
		if asJSON {
			err = env.json(r)
		} else {
			_, err = printable.Fprintf(env.Stdout, "%s  %s  version %s, install %d  %s\n", timeText(r.Time), r.Outcome, r.Version, r.Install, r.Detail)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
