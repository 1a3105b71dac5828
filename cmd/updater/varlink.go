package main

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"updater/device/config"
	"updater/service"
)

func newVarlink(env Env) *cobra.Command {
	var path string
	var idle time.Duration
	cmd := &cobra.Command{
		Use:   "varlink",
		Short: "Answer programs on the socket that systemd passes",
		Long: `varlink answers calls of the interface io.updater (varlink.org) on a socket that it inherits
(sd_listen_fds(3)), and ends when nobody has been connected for a while. The mode of the socket says
who may call. updater-varlink.socket is the unit for it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := service.Inherited()
			if err != nil {
				return &usageError{err: err, hint: "systemctl enable --now updater-varlink.socket starts it when a program connects"}
			}
			return service.New(service.Options{
				Config:   func() (*config.Config, error) { return env.config(path) },
				Inputs:   env.inputs(env.warn),
				Events:   func(w io.Writer) service.Events { return newReport(Env{Stdout: w, Stderr: env.Stderr}, true) },
				Describe: classify, Version: buildVersion(),
			}).Serve(cmd.Context(), l, idle)
		},
	}
	cmd.Flags().StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	cmd.Flags().DurationVar(&idle, "idle", 30*time.Second, "end after so long without a connection, and without a method that runs")
	return cmd
}
