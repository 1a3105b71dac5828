package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"updater/source"
	"updater/state"
)

// historyReport is the result of history.
type historyReport struct {
	Events []state.Event `json:"events"` // the newest last
}

func newHistory(env Env) *cobra.Command {
	var config string
	var asJSON bool
	n := 0
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show the last installs and what became of them",
		Long: `history lists what the state store remembers, the newest last: every install that wrote to a slot,
with image, version, signer, how long its phases took, and how it ended; and when a slot was
marked good or bad. An install that a power cut has ended is listed as writing. What was refused
before anything was written is not listed: a refusal changes nothing. The number of events is
bounded, by 64 and by the size of the store; the oldest go first.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			h, err := history(config, n)
			if err != nil {
				return err
			}
			if asJSON {
				return env.json(h)
			}
			return printHistory(env, h)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", DefaultConfig, "device configuration `FILE`")
	f.IntVarP(&n, "last", "n", 0, "only the last `COUNT` events")
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func history(configPath string, n int) (*historyReport, error) {
	config, err := LoadConfig(configPath)
	if err != nil {
		return nil, err
	}
	if config.State.Device == "" {
		return nil, &usageError{err: fmt.Errorf("no state store is configured, so nothing is remembered"), hint: "set state in the configuration"}
	}
	m, err := readMemory(config)
	if err != nil {
		return nil, err
	}
	known := m.state()
	h := &historyReport{Events: known.History}
	for _, slot := range sortedKeys(known.Slots) {
		for _, role := range sortedKeys(known.Slots[slot]) {
			if i := known.Slots[slot][role]; i.Result == state.Writing { // it has no event yet, and has none for ever after a power cut
				h.Events = append(h.Events, state.Event{
					At: i.At, Slot: slot, Role: role, Version: i.Version, RollbackIndex: i.RollbackIndex, Result: i.Result,
					Detail: "under way, or ended by a power cut", Source: i.Source, Signer: i.Signer,
				})
			}
		}
	}
	slices.SortStableFunc(h.Events, func(a, b state.Event) int { return a.At.Compare(b.At) })
	if n > 0 && len(h.Events) > n {
		h.Events = h.Events[len(h.Events)-n:]
	}
	return h, nil
}

func printHistory(env Env, h *historyReport) error {
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
		fmt.Fprintf(w, "%s\tslot %s %s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), e.Slot, e.Role, e.Result, strings.Join(words, ", "))
	}
	if len(h.Events) == 0 {
		fmt.Fprintln(w, "nothing was installed yet")
	}
	return w.Flush()
}

// imageName is what is remembered of where an image came from. An address loses what may be a secret: its user, its
// password and its query.
func imageName(image string) string {
	if image == "-" {
		return "standard input"
	}
	u, remote, err := source.ParseURL(image)
	if err != nil || !remote {
		return image
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
