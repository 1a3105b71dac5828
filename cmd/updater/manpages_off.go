//go:build !docs

package main

import "github.com/spf13/cobra"

// addManPages adds nothing to the program of a device; see manpages.go.
func addManPages(*cobra.Command) {}
