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
	machineFlags(cmd, &path, &asJSON)
	return cmd
}

func machineFlags(cmd *cobra.Command, path *string, asJSON *bool) {
	cmd.Flags().StringVar(path, "config", config.DefaultPath, "device configuration `FILE`")
	cmd.Flags().BoolVar(asJSON, "json", false, "print as JSON lines")
}

// line prints v for machines, or a line for people.
func (e Env) line(asJSON bool, v any, format string, a ...any) error {
	if asJSON {
		return e.json(v)
	}
	_, err := printable.Fprintf(e.Stdout, format+"\n", a...)
	return err
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
	nothing := &fleet.NothingError{Verdict: v}
	if v.Entry == nil && !asJSON {
		return nothing
	}
	if err := env.line(asJSON, v, "%s", v.Reason); err != nil || v.Entry != nil {
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
	machineFlags(cmd, &path, &asJSON)
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
	var path string
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "scrub",
		Short: "Compare the slots with the signed documents of what was installed",
		Long: `scrub reads every slot from the medium and compares it with the signed documents that the state
store keeps. A damaged slot ends with exit 14; unless it runs, it is marked bad, since it is no
release to fall back to. --repair writes one that was good again, from the running slot or from
where it was installed from, and makes it the fallback. A slot that is mounted read-write, or of
which no document is kept, is unknown. Run it when the device is idle.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.config(path)
			if err != nil {
				return err
			}
			list, err := install.Scrub(cmd.Context(), c, repair, env.inputs(env.warn))
			for _, s := range list {
				err = errors.Join(err, env.line(asJSON, s, "slot %s: %s  %s", s.Slot, s.Result, s.Detail))
			}
			return err
		},
	}
	machineFlags(cmd, &path, &asJSON)
	cmd.Flags().BoolVar(&repair, "repair", false, "write a damaged slot again that was good")
	return cmd
}
