package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// stampVersion and stampTime are set by the linker (see the Makefile): the version, and when the sources
// were committed, RFC 3339, which is the floor of the trusted clock.
var (
	stampVersion = "unreleased"
	stampTime    = ""
)

func newVersion(env Env) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(env.Stdout, "updater %s %s/%s %s\n", stampVersion, runtime.GOOS, runtime.GOARCH, stampTime)
			return err
		},
	}
}
