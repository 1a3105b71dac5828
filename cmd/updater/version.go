package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is the version of this tree; packages and the changelog follow it. A tree between two releases has the version of
// the next one with "-pre".
const version = "0.2.0"

// The linker sets these (see the Makefile): the commit, and its time in RFC 3339, which is the floor of the trusted clock.
var (
	stampCommit = ""
	stampTime   = ""
)

// buildVersion returns the version with the commit as build metadata (semver.org), for example 0.2.0+3f2a91c.
func buildVersion() string {
	if stampCommit == "" {
		return version
	}
	return version + "+" + stampCommit
}

type versionInfo struct {
	Version string `json:"version"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Time    string `json:"time"` // of the commit; "" when it was not stamped
}

func newVersion(env Env) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return env.json(versionInfo{Version: buildVersion(), OS: runtime.GOOS, Arch: runtime.GOARCH, Time: stampTime})
			}
			_, err := fmt.Fprintf(env.Stdout, "updater %s %s/%s %s\n", buildVersion(), runtime.GOOS, runtime.GOARCH, stampTime)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}
