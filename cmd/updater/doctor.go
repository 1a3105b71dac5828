package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/efi"
)

// finding is one thing that somebody should know, and which check has found it.
type finding struct {
	Check string `json:"check"` // config | keys | clock | disk | slots | medium | kernel | state | boot
	boot.Finding
}

// doctor looks for what is wrong and changes nothing. Each check adds its findings; one that cannot go on says why, and
// the others go on without it.
type doctor struct {
	machine
	config *Config
	booted string
	check  string // that runs
	found  []finding
	code   int // exit code of the first failure
}

// machine is what the checks ask of the running system. Tests plant faults in it that a file cannot have.
type machine struct {
	now    func() time.Time
	medium func(p blockdev.Partition) (blockdev.Facts, blockdev.Features, error)
	efi    func() error // why the firmware's variables cannot be reached
	root   string       // that of the running system
}

var thisMachine = machine{
	now: time.Now,
	medium: func(p blockdev.Partition) (f blockdev.Facts, has blockdev.Features, err error) {
		d, err := p.Open(blockdev.ReadOnly)
		if err != nil {
			return f, has, err
		}
		defer d.Close()
		return d.Facts(), d.Features(), nil
	},
	efi:  func() error { _, err := efi.OpenFirmware(efi.Global); return err },
	root: "/",
}

// newDoctor looks for what is wrong and says what to do about it.
func newDoctor(env Env) *cobra.Command {
	var o bootOptions
	var repair, asJSON bool
	cmd := o.command("doctor", "Look for what is wrong, and say what to do about it", noArgs, func(cmd *cobra.Command, _ []string) error {
		if repair {
			if err := repairBoot(cmd.Context(), o); err != nil {
				return err
			}
		}
		return examine(cmd.Context(), o, thisMachine, env, asJSON)
	})
	cmd.Long = `doctor looks at everything that an install needs, and changes nothing: the configuration, the
keys and the clock, the disk and the slots, the medium and the kernel, the state store, and the
boot loader's state. Every finding has its severity, the evidence, and what to do about it:
a failure is in the way of the next install, boot or fallback, a warning weakens a promise,
and a note is worth knowing. The exit code is 0 unless there is a failure.`
	cmd.Flags().BoolVar(&repair, "repair", false, "mend first what can be mended without a loss")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// examine prints the findings. A failure among them is an error.
func examine(ctx context.Context, o bootOptions, m machine, env Env, asJSON bool) error {
	d := &doctor{machine: m, booted: o.booted}
	d.run(ctx, o.config)
	if asJSON {
		if err := env.json(struct {
			Findings []finding `json:"findings"`
		}{d.found}); err != nil {
			return err
		}
	} else {
		for _, f := range d.found {
			fmt.Fprintf(env.Stdout, "%s: %s\n", f.Severity, f.Evidence)
			if f.Remedy != "" {
				fmt.Fprintf(env.Stdout, "    %s\n", f.Remedy)
			}
		}
		if len(d.found) == 0 {
			fmt.Fprintln(env.Stdout, "nothing is wrong")
		}
	}
	if d.code != 0 {
		return &doctorError{code: d.code}
	}
	return nil
}

// doctorError says that there are failures, which were printed.
type doctorError struct{ code int }

func (e *doctorError) Error() string {
	return "the next install, the next boot or the fallback is at risk"
}

// run makes all checks. The findings are sorted from the least severe, since a person reads the last line first.
func (d *doctor) run(ctx context.Context, path string) {
	d.check = "config"
	config, err := LoadConfig(path)
	if err != nil {
		d.fail(err)
		return
	}
	d.config = config
	for _, c := range []struct {
		name string
		run  func(ctx context.Context)
	}{
		{"config", d.checkConfig}, {"keys", d.checkKeys}, {"clock", d.checkClock}, {"disk", d.checkDisk},
		{"kernel", d.checkFirmware}, {"state", d.checkState}, {"boot", d.checkBoot},
	} {
		d.check = c.name
		c.run(ctx)
	}
	rank := func(f finding) int {
		return slices.Index([]boot.Severity{boot.Info, boot.Warning, boot.Failure}, f.Severity)
	}
	slices.SortStableFunc(d.found, func(a, b finding) int { return rank(a) - rank(b) })
}

// add notes findings, each only once: two checks may meet the same fault.
func (d *doctor) add(findings ...boot.Finding) {
	for _, f := range findings {
		if slices.ContainsFunc(d.found, func(o finding) bool { return o.Evidence == f.Evidence }) {
			continue
		}
		d.found = append(d.found, finding{d.check, f})
		if f.Severity == boot.Failure && d.code == 0 {
			d.code = map[string]int{"config": ExitUsage, "keys": ExitTrust, "disk": ExitFailed, "slots": ExitIncompatible, "medium": ExitWrite, "kernel": ExitFailed}[d.check]
			if d.code == 0 {
				d.code = ExitBootState
			}
		}
	}
}

func (d *doctor) warn(remedy, format string, a ...any) { d.add(boot.Warn(remedy, format, a...)) }

func (d *doctor) failure(remedy, format string, a ...any) { d.add(boot.Fail(remedy, format, a...)) }

// fail makes a failure of an error, with what the table of exit codes says to do about it. What is mended by --repair is
// that of the boot state.
func (d *doctor) fail(err error) {
	_, remedy := classify(err)
	if d.check == "boot" {
		remedy = boot.RemedyRepair
	}
	d.failure(remedy, "%s", strings.TrimSpace(err.Error()))
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
