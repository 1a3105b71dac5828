package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"updater/blockdev"
	"updater/boot"
)

// newDoctor looks for what is wrong and says what to do about it. It is a list of checks, each of which
// returns findings; today they are those of the boot state.
func newDoctor(env Env) *cobra.Command {
	var o bootOptions
	var repair, asJSON bool
	cmd := o.command("doctor", "Look for what is wrong, and say what to do about it", noArgs, func(cmd *cobra.Command, _ []string) error {
		if repair {
			if err := repairBoot(cmd.Context(), o); err != nil {
				return err
			}
		}
		return examine(cmd.Context(), o, env, asJSON)
	})
	cmd.Flags().BoolVar(&repair, "repair", false, "mend first what can be mended without a loss")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// examine prints the findings. A failure among them is an error.
func examine(ctx context.Context, o bootOptions, env Env, asJSON bool) error {
	config, err := LoadConfig(o.config)
	if err != nil {
		return err
	}
	found, err := bootFindings(ctx, config, o.booted)
	if err != nil {
		return err
	}
	if asJSON {
		if err := env.json(struct {
			Findings []boot.Finding `json:"findings"`
		}{found}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			fmt.Fprintf(env.Stdout, "%s: %s\n", f.Severity, f.Evidence)
			if f.Remedy != "" {
				fmt.Fprintf(env.Stdout, "    %s\n", f.Remedy)
			}
		}
		if len(found) == 0 {
			fmt.Fprintln(env.Stdout, "nothing is wrong")
		}
	}
	if slices.ContainsFunc(found, func(f boot.Finding) bool { return f.Severity == boot.Failure }) {
		return fmt.Errorf("%w: the next boot or the fallback is at risk", boot.ErrState)
	}
	return nil
}

// bootFindings are the findings of the boot state, from the least severe. A state that cannot be read is one.
func bootFindings(ctx context.Context, config *Config, booted string) ([]boot.Finding, error) {
	s, err := statusOf(ctx, config, booted)
	if errors.Is(err, boot.ErrState) {
		return []boot.Finding{{Severity: boot.Failure, Evidence: err.Error(), Remedy: boot.RemedyRepair}}, nil
	}
	if err != nil {
		return nil, err
	}
	rank := func(f boot.Finding) int {
		return slices.Index([]boot.Severity{boot.Info, boot.Warning, boot.Failure}, f.Severity)
	}
	slices.SortStableFunc(s.Findings, func(a, b boot.Finding) int { return rank(a) - rank(b) })
	return s.Findings, nil
}

// repairBoot has the backend mend its state, under the disk's lock.
func repairBoot(ctx context.Context, o bootOptions) error {
	config, err := LoadConfig(o.config)
	if err != nil {
		return err
	}
	dev, err := openWaiting(config, o.booted)
	if err != nil {
		return err
	}
	defer dev.Close()
	return bootError("", "mending it", dev.backend.Repair(ctx))
}

// statusOf is what status shows.
func statusOf(ctx context.Context, config *Config, booted string) (*statusReport, error) {
	dev, err := openDevice(config, booted, blockdev.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return dev.status(ctx)
}
