package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/internal/printable"
	"updater/internal/terminal"
)

func newStatus(env Env) *cobra.Command {
	var o bootOptions
	cmd := o.command("status", "Show the slots and what the boot loader does next", noArgs, func(cmd *cobra.Command, _ []string) error {
		defer env.answering()()
		c, err := env.config(o.config)
		if err != nil {
			return err
		}
		s, err := device.ReadStatus(cmd.Context(), c, o.booted)
		if err != nil {
			return err
		}
		if o.json {
			return env.json(s)
		}
		return printStatus(env, s)
	})
	return cmd
}

func printStatus(env Env, s *device.Status) error {
	w := tabwriter.NewWriter(terminal.Direct(env.Stdout), 0, 0, 2, ' ', 0) // printable.Fprintf keeps every argument harmless
	running, next := "no slot runs", "no slot boots next"
	if s.Booted != "" {
		running = "running slot " + s.Booted
	}
	if s.Primary != "" {
		next = "boots next slot " + s.Primary
	}
	printable.Fprintf(w, "disk %s, boot loader %s, %s, %s\n", s.Disk, s.Backend, running, next)
	for _, slot := range s.Slots {
		var marks []string
		if slot.Booted {
			marks = append(marks, "running")
		}
		if slot.Primary {
			marks = append(marks, "next")
		}
		left := "not counted"
		if slot.TriesLeft >= 0 {
			left = tries(slot.TriesLeft) + " left"
		}
		var parts []string
		for _, role := range slices.Sorted(maps.Keys(slot.Partitions)) {
			parts = append(parts, role+imageWords(slot, role)+" on "+slot.Partitions[role])
		}
		state := "%s"
		if terminal.Colours(env.Stdout) {
			state = terminal.Paint(stateColours[slot.State], state, 0) // of the same length, which keeps the columns
		}
		printable.Fprintf(w, "slot %s\t"+state+"\t%s\t%s\t%s\n", slot.Name, slot.State, left, strings.Join(marks, ", "), strings.Join(parts, ", "))
	}
	if s.Floor > 0 {
		printable.Fprintf(w, "no rollback index below %d is installed\n", s.Floor)
	}
	for _, f := range s.Boots {
		printable.Fprintf(w, "%s\n", f)
	}
	for _, f := range s.Findings {
		if f.Severity == device.Info {
			printable.Fprintf(w, "note: %s\n", f)
		} else {
			env.warn("%s", f)
		}
	}
	return w.Flush()
}

// stateColours highlight the states that a person looks for first.
var stateColours = map[string]string{"good": terminal.Green, "trying": terminal.Amber, "bad": terminal.Red}

// imageWords is the image of a partition: " 2026.11.1 (installed 2026-11-28)".
func imageWords(slot device.SlotStatus, role string) string {
	i, ok := slot.Images[role]
	if !ok {
		return ""
	}
	words := ""
	if i.Version != "" {
		words = " " + i.Version
	}
	if !i.At.IsZero() {
		return fmt.Sprintf("%s (%s %s)", words, i.Result, i.At.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("%s (%s)", words, i.Result)
}
