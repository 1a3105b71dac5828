package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"updater/install"
	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/update"
	"updater/verify"
)

// Results go to standard output; all else goes to standard error with the prefix "updater:", in lower case and without a period. A bar is
// drawn only on a terminal; elsewhere there are lines, never a carriage return.

// failed reports an error as the last event, and passes it on.
func (r *report) failed(err error) error {
	code, hint := classify(err)
	e := event{Code: &code, Msg: err.Error(), Hint: hint}
	if bad, ok := errors.AsType[*update.ReadBackError](err); ok {
		e.Ranges = bad.Ranges
	}
	r.result(e)
	if !r.asJSON {
		return err
	}
	return &reportedError{err: err}
}

// installed reports a slot that boots next, and passes on late, the error of a step after the switch.
func (r *report) installed(res *update.Result, late error) error {
	code := ExitDone
	e := event{Code: &code, Result: res}
	if late != nil {
		code, e.Hint = classify(late)
		e.Msg = late.Error()
	}
	r.result(e)
	switch {
	case r.asJSON && late == nil:
		return nil
	case r.asJSON:
		return &reportedError{err: late}
	}
	for _, w := range res.Warnings {
		r.env.warn("%s", w)
	}
	what := "image"
	if res.Version != "" {
		what = "version " + res.Version
	}
	held := ""
	if res.SkippedBytes > 0 {
		held = fmt.Sprintf("%s there already, ", terminal.Bytes(res.SkippedBytes))
	}
	if res.RepairedBytes > 0 {
		held += fmt.Sprintf("%s written twice, ", terminal.Bytes(res.RepairedBytes))
	}
	next := fmt.Sprintf("slot %s boots next, with %s", res.Slot, tries(res.Tries))
	if res.Downloaded {
		next = fmt.Sprintf("slot %s waits; updater activate %s switches to it", res.Slot, res.Slot)
	}
	r.env.done("installed %s into slot %s: %s written, %s%s zeroed, all read back, in %.1f s\nsigned by %s\n%s\n",
		what, res.Slot, terminal.Bytes(res.WrittenBytes), held, terminal.Bytes(res.ZeroedBytes), time.Since(r.start).Seconds(), signers(res.Signers), next)
	return late
}

// waits reports what the next restart does, without an install: a slot that holds the release already boots, or the recovery installs it.
func (r *report) waits(what error) {
	if r.asJSON {
		code := ExitDone
		r.result(event{Code: &code, Msg: what.Error()})
		return
	}
	r.env.done("%v\n", what)
}

// unmappedWords name the treatment of unmapped blocks.
var unmappedWords = map[string]string{update.UnmappedZero: "zeroed", update.UnmappedKeep: "kept", update.UnmappedDiscard: "discarded"}

func (r *report) copied(args []string, res *install.CopyResult) error {
	if r.asJSON {
		code := ExitDone
		r.result(event{Code: &code, Copy: res})
		return nil
	}
	back := "all read back"
	if !res.ReadBack {
		back = "not read back"
	}
	held := ""
	if res.SkippedBytes > 0 {
		held = terminal.Bytes(res.SkippedBytes) + " held already, "
	}
	r.env.done("copied %s to %s: %s written, %s%s %s, %s, in %.1f s\n", args[0], args[1],
		terminal.Bytes(res.WrittenBytes), held, terminal.Bytes(res.ImageBytes-res.MappedBytes), unmappedWords[res.Unmapped], back, time.Since(r.start).Seconds())
	if len(res.Signers) > 0 {
		r.env.done("signed by %s\n", signers(res.Signers))
	}
	if g := res.GPT; g != nil {
		r.env.done("the backup GPT moved from sector %d to %d, the end of the disk\n", g.OldSector, g.BackupSector)
		if g.Grown > 0 {
			r.env.done("partition %d grew to %s\n", g.Grown, terminal.Bytes(g.GrownBytes))
		}
	}
	return nil
}

func (r *report) verified(v *install.Verdict) error {
	if r.asJSON {
		return r.env.json(v)
	}
	for _, w := range v.Warnings {
		r.env.warn("%s", w)
	}
	if _, err := printable.Fprintf(r.env.Stdout, "trusted: signed by %s\nimage of %s, %s mapped in %d ranges\n",
		signers(v.Signers), terminal.Bytes(v.ImageBytes), terminal.Bytes(v.MappedBytes), v.Ranges); err != nil {
		return err
	}
	if v.ImageVerified {
		_, err := fmt.Fprintln(r.env.Stdout, "the image matches")
		return err
	}
	return nil
}

func signers(list []verify.Signer) string {
	var names []string
	for _, s := range list {
		names = append(names, fmt.Sprintf("%s (%s) on %s", s.Fingerprint, s.UserID, s.Time.UTC().Format(time.DateOnly)))
	}
	return strings.Join(names, ", ")
}

func tries(n int) string {
	if n == 1 {
		return "1 try"
	}
	return fmt.Sprintf("%d tries", n)
}
