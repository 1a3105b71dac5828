package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/doctor"
	"updater/internal/printable"
)

// newDoctor finds problems and names their remedies.
func newDoctor(env Env) *cobra.Command {
	var o bootOptions
	var repair bool
	cmd := o.command("doctor", "Find what is wrong, and say what to do about it", noArgs, func(cmd *cobra.Command, _ []string) error {
		defer env.answering()()
		if repair {
			if err := repairBoot(cmd.Context(), o, env); err != nil {
				return err
			}
		}
		return examine(cmd.Context(), o, doctor.ThisMachine(), env)
	})
	cmd.Long = `doctor looks at everything that an install needs, and changes nothing: the configuration, the
keys and the clock, the disk and the slots, the medium and the kernel, the state store, and the
boot loader's state. Every finding has its severity, the evidence, and what to do about it:
a failure stops the next install, boot or fallback, a warning weakens a promise,
and a note is worth knowing. The exit code is 0 unless there is a failure.`
	cmd.Flags().BoolVar(&repair, "repair", false, "first repair what can be repaired without a loss")
	return cmd
}

// repairBoot has the backend restore the redundancy of its state.
func repairBoot(ctx context.Context, o bootOptions, env Env) error {
	c, err := env.config(o.config)
	if err != nil {
		return err
	}
	dev, err := device.Open(c, device.Options{Purpose: device.Change, Booted: o.booted})
	if err != nil {
		return err
	}
	defer dev.Close()
	return dev.Repair(ctx)
}

// examine prints the findings. A failure among them is an error.
func examine(ctx context.Context, o bootOptions, m doctor.Machine, env Env) error {
	var found []doctor.Finding
	c, err := env.config(o.config)
	if err == nil {
		found = doctor.Examine(ctx, c, o.booted, m)
	} else {
		found = []doctor.Finding{{Check: "config", Finding: device.Finding{Severity: device.Failure, Evidence: err.Error()}, Err: err}}
	}
	code := ExitDone
	for i := range found {
		f := &found[i]
		if f.Err != nil && f.Remedy == "" {
			_, f.Remedy = classify(f.Err)
		}
		if f.Severity == device.Failure && code == ExitDone {
			code = findingCode(f)
		}
	}
	if o.json {
		err = env.json(findings{found})
	} else {
		err = printFindings(env, found)
	}
	if code != ExitDone {
		env.unprinted(err)
		return &doctorError{code: code}
	}
	return err
}

// findings is the result of doctor.
type findings struct {
	Findings []doctor.Finding `json:"findings"`
}

func printFindings(env Env, found []doctor.Finding) error {
	for _, f := range found {
		printable.Fprintf(env.Stdout, "%s: %s\n", f.Severity, f.Evidence)
		if f.Remedy != "" {
			printable.Fprintf(env.Stdout, "    %s\n", f.Remedy)
		}
	}
	if len(found) == 0 {
		fmt.Fprintln(env.Stdout, "nothing is wrong")
	}
	return nil
}

// findingCode is the exit code of a failure: of its check, except for a mistake in the configuration, whose code is the same everywhere.
func findingCode(f *doctor.Finding) int {
	if f.Err != nil && isUsage(f.Err) {
		return ExitUsage
	}
	return checkCode(f.Check)
}

// checkCode is the exit code of a failure that a check found.
func checkCode(check string) int {
	switch check {
	case "config":
		return ExitUsage
	case "keys":
		return ExitTrust
	case "disk", "kernel":
		return ExitFailed
	case "slots":
		return ExitIncompatible
	case "medium":
		return ExitWrite
	}
	return ExitBootState
}

// doctorError reports failures that were printed already.
type doctorError struct{ code int }

func (e *doctorError) Error() string {
	return "the next install, the next boot or the fallback is at risk"
}
