package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"updater/device"
	"updater/device/config"
)

// addCompletion lets the shell complete names that only the configuration of this device knows, slots and roles, and the boot loaders.
func addCompletion(env Env, cmd *cobra.Command) {
	names := func(list func(c *config.Config) []string) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			path := config.DefaultPath
			if f := cmd.Flags().Lookup("config"); f != nil {
				path = f.Value.String()
			}
			c, err := env.config(path)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return list(c), cobra.ShellCompDirectiveNoFileComp
		}
	}
	slots := names((*config.Config).SlotNames)
	for flag, complete := range map[string]cobra.CompletionFunc{
		"slot": slots, "booted": slots, "first-state": slots, "role": names((*config.Config).RoleNames),
		"backend":  cobra.FixedCompletions(device.Backends(), cobra.ShellCompDirectiveNoFileComp),
		"progress": cobra.FixedCompletions([]string{"auto", "plain", "json", "none"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == flag {
				_ = cmd.RegisterFlagCompletionFunc(flag, complete) // fails only when it is registered already
			}
		})
	}
	if strings.Contains(cmd.Use, "SLOT") && !strings.Contains(cmd.Use, "@SLOT") {
		cmd.ValidArgsFunction = slots
	}
	for _, sub := range cmd.Commands() {
		addCompletion(env, sub)
	}
}
