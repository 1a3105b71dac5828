package main

import (
	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/config"
)

// configVerdict is a configuration that was checked.
type configVerdict struct {
	File   string           `json:"file"`
	Errors []config.Problem `json:"errors"`
}

func newConfig(env Env) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Work with configurations", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	asJSON := false
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration, without touching a device",
		Long: `check reads a configuration as strictly as an install, and opens nothing else. It prints every
error with file, line and key; the exit code is 2 then.`,
		Args: argsN(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := config.DefaultPath
			if len(args) > 0 {
				path = args[0]
			}
			list := device.Problems(path)
			var err error
			if asJSON {
				err = env.json(configVerdict{File: path, Errors: append([]config.Problem{}, list...)})
			}
			for _, p := range list {
				if !asJSON {
					env.done("%s\n", p.In(path))
				}
			}
			if err == nil && len(list) > 0 {
				err = config.Errorf("configuration %s: %d errors", path, len(list))
			}
			return err
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.AddCommand(check)
	return cmd
}
