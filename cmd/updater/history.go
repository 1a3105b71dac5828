package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/config"
	"updater/internal/printable"
)

func newHistory(env Env) *cobra.Command {
	var path string
	var asJSON bool
	n := 0
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show the last installs and their results",
		Long: `history lists what the state store remembers, the newest last: every install that wrote to a slot,
with image, version, signer, how long its phases took, and how it ended; and when a slot was
marked good or bad. An install that a power cut ended is listed as writing. A refusal before
anything was written changes nothing and is not listed. The number of events is bounded, by 64
and by the size of the store; the oldest are dropped first.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := env.config(path)
			if err != nil {
				return err
			}
			h, err := device.ReadHistory(c)
			if err != nil {
				return err
			}
			if n > 0 && len(h.Events) > n {
				h.Events = h.Events[len(h.Events)-n:]
			}
			if asJSON {
				return env.json(h)
			}
			return printHistory(env, h)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", config.DefaultPath, "device configuration `FILE`")
	f.IntVarP(&n, "last", "n", 0, "only the last `COUNT` events")
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func printHistory(env Env, h *device.History) error {
	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	for _, e := range h.Events {
		words := []string{e.Version, e.Source}
		if len(e.Seconds) > 0 {
			total := 0.0
			for _, s := range e.Seconds {
				total += s
			}
			words = append(words, fmt.Sprintf("in %.1f s", total))
		}
		if e.Signer != "" {
			words = append(words, "signed by "+e.Signer)
		}
		words = append(words, e.Detail)
		words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
		printable.Fprintf(w, "%s\tslot %s %s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), e.Slot, e.Role, e.Result, strings.Join(words, ", "))
	}
	if len(h.Events) == 0 {
		fmt.Fprintln(w, "nothing was installed yet")
	}
	return w.Flush()
}
