package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/internal/printable"
	"updater/internal/progress"
	"updater/internal/terminal"
)

// Env is the environment of a run of the program besides its arguments.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	out    *output                       // of the command line; nil is the default
	clock  func(now time.Time) time.Time // for TLS, in the initramfs; nil elsewhere
	events io.Writer                     // also gets the events of a job as JSON lines; nil means none
	leds   string                        // folder of the LEDs; "" is /sys/class/leds

	reboot func() error // nil is device.Reboot
}

// Run runs one command line and returns its exit code. It prints results to Stdout, and everything for
// people to Stderr. A cancelled ctx ends it with [ExitInterrupted].
func Run(ctx context.Context, args []string, env Env) int {
	env.Stdout, env.Stderr = printable.NewWriter(env.Stdout), printable.NewWriter(env.Stderr)
	env.out = new(output)
	root := newRoot(env)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if u, ok := errors.AsType[*usageError](err); ok && u.hint == "" {
		u.hint = "see " + cmd.CommandPath() + " --help"
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, cause) {
		err = &interruptedError{cause: cause, began: env.out.began.Load()}
	}
	return env.fail(err)
}

// fail prints err, if any, and returns its exit code.
func (e Env) fail(err error) int {
	if err == nil {
		return ExitDone
	}
	code, hint := classify(err)
	reported, ok := errors.AsType[*reportedError](err)
	switch {
	case code == ExitNothing && !ok: // a result, no error
		e.done("%v\n", err)
		fallthrough
	case code == ExitNothing:
		return code
	case ok:
		err = reported.err // stdout has it already
	}
	printable.Fprintf(e.Stderr, "updater: error: %v\n", err)
	if hint != "" {
		printable.Fprintf(e.Stderr, "updater: hint: %s\n", hint)
	}
	return code
}

func (e Env) warn(format string, a ...any) {
	printable.Fprintf(e.Stderr, "updater: warning: "+format+"\n", a...)
}

// answering warns, until stop, when the device does not answer for [progress.StallNotice]. A call that hangs in the kernel cannot be ended.
func (e Env) answering() (stop func() bool) {
	return time.AfterFunc(progress.StallNotice, func() {
		e.warn("no answer for %s: the disk hangs, or another process changes the boot state", progress.StallNotice)
	}).Stop
}

// build holds the values that the linker stamped into the program.
func (e Env) build() config.Build {
	t, _ := time.Parse(time.RFC3339, strings.TrimSpace(stampTime)) // zero when it was not stamped
	return config.Build{Version: buildVersion(), Time: t}
}

// bench is the configuration where there is none: dictionaries may take a quarter of the memory, and a server that does not answer
// is given up soon.
func (e Env) bench() *config.Config {
	c := &config.Config{Build: e.build(), Source: config.Source{GiveUp: config.Duration(time.Minute)}}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		share := int64(info.Totalram) * int64(info.Unit) / 4
		c.Source.ZstdWindow = config.ByteSize(min(max(share, 8<<20), 2<<30))
		c.Source.XZDict = config.ByteSize(min(max(share/2, 16<<20), 1536<<20)) // two blocks at a time
	}
	return c
}

// config reads the configuration of this device.
func (e Env) config(path string) (*config.Config, error) { return device.LoadConfig(path, e.build()) }

// inputs are the inputs of a job besides files and servers.
func (e Env) inputs(warn func(format string, a ...any)) install.Inputs {
	return install.Inputs{Stdin: e.Stdin, Warn: warn, Clock: e.clock}
}

// done prints the result of what has been done. A standard output that is full or closed undoes nothing, so it costs a warning.
func (e Env) done(format string, a ...any) {
	_, err := printable.Fprintf(e.Stdout, format, a...)
	e.unprinted(err)
}

// doneJSON is done for machines.
func (e Env) doneJSON(v any) { e.unprinted(e.json(v)) }

func (e Env) unprinted(err error) {
	if err != nil {
		e.warn("the command has done its work, but printing the result: %v", err)
	}
}

// json prints v as one line, in which nothing acts on a terminal.
func (e Env) json(v any) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := e.Stdout.Write(printable.JSON(line.Bytes()))
	return err
}

// data is standard output for files, which are not changed on the way.
func (e Env) data() io.Writer { return terminal.Direct(e.Stdout) }

func newRoot(env Env) *cobra.Command {
	if env.out == nil {
		env.out = new(output)
	}
	root := &cobra.Command{
		Use:           "updater",
		Short:         "Install a signed image into the inactive slot, safely",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,

		PersistentPreRunE: func(*cobra.Command, []string) error { return env.out.check() },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(flagError)
	env.out.AddFlags(root.PersistentFlags())
	root.AddCommand(
		newInstall(env), newVerify(env), newStatus(env), newMark(env), newActivate(env), newRollback(env), newCheck(env), newUpdate(env), newReportVerb(env), newScrub(env), newServe(env), newRecover(env), newHistory(env), newHealth(env),
		newDoctor(env), newBmap(env), newRelease(env), newChannel(env), newKeyring(env), newPack(env), newDelta(env), newProvision(env), newVersion(env),
		newInit(env), newConfig(env), newVarlink(env),
	)
	addManPages(root)
	addExamples(root)
	addCompletion(env, root)
	return root
}

const rootHelp = `updater writes a new system image to the inactive A/B slot: it verifies the GPG
signature of the image's block map (bmap), writes the mapped blocks with paced
flushes, reads everything back from the medium, and only then switches the boot
slot. A power cut at any moment leaves a complete, verified system to boot.

EXIT STATUS
` + exitTable

// noArgs and argsN report a wrong number of arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error { return argsN(0, 0)(cmd, args) }

func argsN(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && least > 0 {
			return usageOf(cmd, "an argument is missing")
		}
		if len(args) < least || len(args) > most {
			if cmd.HasSubCommands() {
				return unknownCommand(cmd, args[0])
			}
			return usageOf(cmd, fmt.Sprintf("%d arguments, expected %s", len(args), count(least, most)))
		}
		return nil
	}
}

// usageOf is an error about the arguments of a command.
func usageOf(cmd *cobra.Command, found string) error {
	err := fmt.Errorf("%s: %s; usage: %s", cmd.CommandPath(), found, cmd.UseLine())
	return &usageError{err: err, hint: "see " + cmd.CommandPath() + " --help"}
}

func count(least, most int) string {
	if least == most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}
