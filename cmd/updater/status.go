package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"updater/boot"
	"updater/state"
)

// statusReport is the result of status.
type statusReport struct {
	Product  string         `json:"product,omitempty"`
	Disk     string         `json:"disk"`
	Backend  string         `json:"backend"`
	Booted   string         `json:"booted"`  // "" outside every slot
	Primary  string         `json:"primary"` // boots next; "" is none
	Slots    []slotReport   `json:"slots"`
	Floor    int64          `json:"rollback_floor"`        // lowest rollback index that may be installed
	Time     time.Time      `json:"trusted_time,omitzero"` // the last that was recorded
	Boots    []string       `json:"boots"`                 // the next three boots in words, when nothing is marked in between
	Findings []boot.Finding `json:"findings,omitempty"`
}

type slotReport struct {
	Name       string            `json:"name"`
	State      string            `json:"state"` // good | trying | bad
	TriesLeft  int               `json:"tries_left"`
	Booted     bool              `json:"booted"`
	Primary    bool              `json:"primary"`
	Partitions map[string]string `json:"partitions"`        // role to partition
	Version    string            `json:"version,omitempty"` // of its only image
	Images     state.Slot        `json:"images,omitempty"`  // what was installed, by role, where a state store knows it
}

func newStatus(env Env) *cobra.Command {
	var config, booted string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the slots and what the boot loader does next",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := status(cmd.Context(), config, booted)
			if err != nil {
				return err
			}
			if asJSON {
				return env.json(s)
			}
			return printStatus(env, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", DefaultConfig, "device configuration `FILE`")
	f.StringVar(&booted, "booted", "", "slot `NAME` that counts as running, for a disk that no kernel booted from")
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func status(ctx context.Context, configPath, booted string) (*statusReport, error) {
	config, err := LoadConfig(configPath)
	if err != nil {
		return nil, err
	}
	return statusOf(ctx, config, booted)
}

// status reads the boot state and where the slots are.
func (d *device) status(ctx context.Context) (*statusReport, error) {
	config := d.config
	st, err := d.backend.State(ctx)
	if err != nil {
		return nil, err
	}
	s := &statusReport{
		Product: config.Product, Disk: d.disk.Path(), Backend: config.Boot.Backend,
		Booted: st.Booted, Primary: st.Next, Boots: boot.Words(st), Findings: st.Findings,
	}
	if bad := d.disk.Degraded(); bad != "" {
		s.Findings = append(s.Findings, boot.Warn("restore it with sgdisk -e", "%s", bad))
	}
	for _, warning := range d.warnings {
		s.Findings = append(s.Findings, boot.Warn("", "%s", warning))
	}
	known := d.state()
	s.Floor, s.Time = known.Floor, known.Time
	for _, slot := range st.Slots {
		r := slotReport{
			Name: slot.Name, State: stateWord(slot, st.Booted), TriesLeft: slot.TriesLeft,
			Booted: slot.Name == st.Booted, Primary: slot.Name == st.Next, Partitions: map[string]string{},
		}
		for _, c := range config.Slot {
			if c.Name != slot.Name {
				continue
			}
			for role, spec := range c.Partitions {
				p, err := d.disk.Find(spec)
				if err != nil {
					s.Findings = append(s.Findings, boot.Fail("mend the partitions of the slot in the configuration", "%v", err))
					continue
				}
				r.Partitions[role] = p.String()
			}
		}
		r.remember(known.Slots[slot.Name])
		s.Slots = append(s.Slots, r)
	}
	return s, nil
}

// remember adds what is known of the slot's images.
func (r *slotReport) remember(images state.Slot) {
	r.Images = images
	for _, i := range images {
		if len(images) == 1 {
			r.Version = i.Version
		}
	}
}

// stateWord is one word for a slot's state. A slot that runs and was not marked good yet is being tried, also
// when this boot has spent its last try.
func stateWord(s boot.SlotState, booted string) string {
	switch {
	case s.Good:
		return "good"
	case s.Bootable, s.Name == booted && s.Priority > 0:
		return "trying"
	}
	return "bad"
}

func printStatus(env Env, s *statusReport) error {
	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "disk %s, boot loader %s, running %s, boots next %s\n", s.Disk, s.Backend, orNone(s.Booted), orNone(s.Primary))
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
			parts = append(parts, role+imageWords(slot.Images, role)+" on "+slot.Partitions[role])
		}
		fmt.Fprintf(w, "slot %s\t%s\t%s\t%s\t%s\n", slot.Name, slot.State, left, strings.Join(marks, ", "), strings.Join(parts, ", "))
	}
	if s.Floor > 0 {
		fmt.Fprintf(w, "no rollback index below %d is installed\n", s.Floor)
	}
	for _, words := range s.Boots {
		fmt.Fprintln(w, words)
	}
	for _, f := range s.Findings {
		if f.Severity == boot.Info {
			fmt.Fprintf(w, "note: %s\n", f)
		} else {
			env.warn("%s", f)
		}
	}
	return w.Flush()
}

// imageWords says what is in a partition: " 2026.11.1 (installed)".
func imageWords(images state.Slot, role string) string {
	i, ok := images[role]
	if !ok {
		return ""
	}
	words := ""
	if i.Version != "" {
		words = " " + i.Version
	}
	return fmt.Sprintf("%s (%s)", words, i.Result)
}

func orNone(s string) string {
	if s == "" {
		return "no slot"
	}
	return "slot " + s
}
