//go:build !docs

package main

import "github.com/spf13/cobra"

// addManPages adds nothing to the device's program; see manpages.go.
func addManPages(*cobra.Command) {}
