package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"updater/bmap"
	"updater/device"
	"updater/device/config"
	"updater/device/health"
	"updater/fleet"
	"updater/install"
	"updater/provision/identity"
	"updater/provision/line"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// The exit codes. They are never renumbered.
const (
	ExitDone         = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitNothing      = 3
	ExitTrust        = 10
	ExitIncompatible = 11
	ExitTooOld       = 12
	ExitSource       = 13
	ExitWrite        = 14
	ExitBusy         = 15
	ExitBootState    = 16
	ExitLocked       = 17
	ExitInterrupted  = 130
)

const exitTable = `    0  done
    1  failed
    2  usage: command line or configuration
    3  nothing to do
   10  signature or trust: not signed by a trusted key, or the image is not the signed one
   11  incompatible: product, role, slot or size
   12  too old or expired
   13  source unreachable or damaged: get it again
   14  write or read-back
   15  target busy or active
   16  boot state or state store
   17  locked by another updater
  130  interrupted`

// usageError is a wrong command line.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, a ...any) error { return &usageError{err: fmt.Errorf(format, a...)} }

// interruptedError is a run that was ended by a signal.
type interruptedError struct {
	cause error
	began bool // something was being written
}

func (e *interruptedError) Error() string { return "interrupted: " + e.cause.Error() }

// reportedError is an error that was printed as JSON already.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return e.err.Error() }
func (e *reportedError) Unwrap() error { return e.err }

// hinter is an error with a hint of its own.
type hinter interface {
	error
	Hint() string
}

// classify maps an error to its exit code and its hint: the one table of both.
// The order matters where errors wrap each other: the outer meaning comes first.
func classify(err error) (code int, hint string) {
	defer func() {
		if h, ok := errors.AsType[hinter](err); ok && h.Hint() != "" {
			hint = h.Hint()
		}
	}()
	switch {
	case isEarly(err):
		return ExitInterrupted, "nothing was written; run it again"
	case is[*interruptedError](err):
		return ExitInterrupted, "run it again; the data written so far is incomplete, and a slot stays marked bad until then"
	case is[*install.CopyError](err):
		return copyCode(err)
	case is[*source.SchemeError](err):
		return ExitUsage, "fetch it with another program and pipe it in: curl ADDRESS | updater install --bmap FILE -"
	case is[*source.KindError](err):
		return ExitUsage, "name a regular file"
	case is[*source.TooLongError](err):
		return ExitFailed, "source.max_bmap in the configuration lets a block map be larger"
	case isUsage(err):
		if u, ok := errors.AsType[*usageError](err); ok && u.hint != "" {
			return ExitUsage, u.hint
		}
		return ExitUsage, "see updater --help"
	case is[*line.FailedError](err):
		u, _ := errors.AsType[*line.FailedError](err)
		return cmp.Or(u.Code, ExitFailed), "the record of each target says why; put aside what is in quarantine, run the others again"
	case is[*medium.Error](err):
		return ExitWrite, "put the medium aside; it failed twice"
	case is[*plan.TooSmallError](err):
		return ExitIncompatible, "take a larger disk, or make the plan smaller"
	case is[*record.LatchedError](err):
		return ExitTrust, "updater provision token makes a token with the factory key"
	case is[*record.ChainError](err):
		return ExitTrust, "compare the spool with what the server has received"
	case errors.Is(err, identity.ErrNoSerial):
		return ExitFailed, "add serials to the list or the server"
	case is[*identity.AnswerError](err):
		return ExitSource, "look at the log of the server"
	case is[*install.HookError](err):
		return ExitFailed, "see what the hook printed"
	case is[*doctorError](err):
		return doctorCode(err), doctorHint
	case is[*health.UnhealthyError](err):
		return ExitFailed, "see what the checks printed"
	case is[*fleet.NothingError](err), errors.Is(err, fleet.ErrNoReports):
		return ExitNothing, ""
	case is[*fleet.WithdrawnError](err):
		return ExitTooOld, "the next check takes what the channel offers then"
	case is[*fleet.StaleError](err):
		return ExitTooOld, "renew the channel at the publisher, and see what serves the old one"
	case is[*fleet.RefusedError](err):
		return ExitSource, "see the log of the server; reports are kept"
	case is[*update.NothingError](err):
		return ExitNothing, "--rewrite installs it all the same"
	case is[*update.WriteError](err), is[*update.ReadBackError](err):
		return ExitWrite, "the slot is marked bad and the other one still boots; check the medium, then install again"
	case is[*update.ActiveError](err):
		return ExitBusy, "leave out --slot, and the inactive slot is chosen"
	case is[*device.BusyError](err):
		return ExitBusy, "unmount or release it, then try again"
	case is[*device.ChangedError](err):
		return ExitBootState, "see updater status, then run the install again"
	case is[*device.LockedError](err):
		return ExitLocked, "wait until the other one has ended"
	case is[*device.StoreError](err):
		return ExitBootState, "updater status shows the state store; check the medium, or name another place for it in the configuration"
	case is[*update.NotGoodError](err):
		return ExitBootState, "run updater mark good once the running system is known to work; --force-from-bad installs all the same"
	case errors.Is(err, device.ErrState):
		return ExitBootState, "updater doctor says what is wrong, and --repair repairs what can be repaired; docs/boot has the boot loader's own tools"
	case is[*update.BootError](err), errors.Is(err, device.ErrRefused):
		return ExitBootState, "updater status shows what the boot loader will do"
	case is[*bmap.MismatchError](err), is[*bmap.MismatchesError](err):
		return ExitWrite, "write or copy the image again"
	case is[*update.ImageError](err):
		return ExitTrust, "image and bmap do not belong together, or the image was changed; get both again"
	case is[*source.FetchError](err):
		return ExitSource, "check the address, the link, the [source] table of the configuration, and the clock when a certificate is refused; then run it again"
	case is[*source.ContainerError](err):
		return ExitSource, "unpack it, or convert it to a raw image, before its bmap is made"
	case is[*source.LimitError](err):
		return ExitSource, limitHint(err)
	case is[*update.SourceError](err), is[*source.CorruptError](err), is[*source.TrailingError](err):
		return ExitSource, "get the image again"
	case is[*device.PartitionError](err):
		return ExitIncompatible, "correct the partitions of the slot in the configuration"
	case is[*device.TableError](err):
		return ExitIncompatible, "correct the partition table with sgdisk or sfdisk, or name another disk under [disk]"
	case is[*update.IncompatibleError](err), is[*update.HardwareError](err), is[*release.SlotError](err), is[*release.MapError](err):
		return ExitIncompatible, "this update is not for this device"
	case is[*update.ExpiredError](err):
		return ExitTooOld, "get a newer update, or set the clock when it is ahead"
	case is[*update.RollbackError](err):
		return ExitTooOld, "get a newer update; the floor is what was marked good here, and nothing lowers it"
	case is[*verify.SignatureError](err), is[*verify.MismatchError](err):
		return ExitTrust, "nothing was written"
	case is[*release.TypeError](err):
		return ExitTrust, "name a document of the type that is needed"
	case is[*release.PinError](err):
		return ExitTrust, "document and block map do not belong together; get both again"
	case is[*release.ArchiveError](err):
		return ExitUsage, "make the archive with updater release tar"
	case is[*release.EntryError](err):
		return ExitTrust, "channel and release do not belong together; updater channel add publishes a release"
	case is[*release.UnsupportedError](err):
		return ExitIncompatible, "install a release that brings a newer updater first"
	case is[*release.SyntaxError](err):
		return ExitFailed, "make the document again with updater release create"
	case is[*plan.RefusedError](err):
		return ExitBusy, "name another disk, or release this one"
	case errors.Is(err, bmap.ErrChanged):
		return ExitFailed, "make the bmap again while nothing writes to the image"
	case is[*bmap.NotZeroError](err):
		return ExitFailed, "copy the image, or make the bmap with --scan-zeros; the file system misreports its holes"
	case errors.Is(err, bmap.ErrNoChecksum):
		return ExitFailed, "make the bmap again with updater bmap create, which gives every range a checksum"
	case is[*bmap.SyntaxError](err):
		return ExitFailed, "make the bmap again with updater bmap create"
	}
	return systemCode(err)
}

// systemCode is the code and the hint of an error that only the kernel has named.
func systemCode(err error) (code int, hint string) {
	switch path := pathOf(err); {
	case path == os.Stdout.Name() || errors.Is(err, syscall.EPIPE):
		return ExitFailed, "standard output is full or closed; send it elsewhere"
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EREMOTEIO), errors.Is(err, syscall.EILSEQ):
		return ExitWrite, "check the medium, its cable and its power; dmesg has the kernel's side"
	case errors.Is(err, syscall.EROFS):
		return ExitFailed, "take off the write protection: the switch of the card, or a mount that is read-only"
	case errors.Is(err, fs.ErrPermission):
		return ExitFailed, "run it as root, or as a user who may open what the message names"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ExitFailed, "make room where the message says, then run it again"
	case errors.Is(err, syscall.ENOMEDIUM), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV),
		errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "/dev/"):
		return ExitFailed, disksHint()
	case errors.Is(err, fs.ErrNotExist):
		return ExitFailed, "check the path that the message names"
	}
	return ExitFailed, "updater doctor examines the device; docs/operation.md says what a report needs"
}

// pathOf is the file that an error is about, "" when it names none.
func pathOf(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Path
	}
	return ""
}

// disksHint names the disks of this machine, at most eight.
func disksHint() string {
	entries, _ := os.ReadDir("/sys/block")
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "loop") || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		if size, err := os.ReadFile("/sys/block/" + e.Name() + "/size"); err == nil && strings.TrimSpace(string(size)) != "0" && len(names) < 8 {
			names = append(names, "/dev/"+e.Name())
		}
	}
	if len(names) == 0 {
		return "insert the medium; the kernel knows no disk"
	}
	return "insert the medium, or name another one; the disks here are " + strings.Join(names, ", ")
}

// isEarly reports whether a run was interrupted before it wrote anything.
func isEarly(err error) bool {
	e, ok := errors.AsType[*interruptedError](err)
	return ok && !e.began
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// doctorHint is the hint of failures that doctor has printed with their remedies.
const doctorHint = "carry out the remedy of each failure"

func doctorCode(err error) int {
	e, _ := errors.AsType[*doctorError](err)
	return e.code
}

// limitHint names the key that raises an exceeded limit of a decoder.
func limitHint(err error) string {
	e, _ := errors.AsType[*source.LimitError](err)
	key := "source.xz_dict"
	if strings.HasPrefix(e.What, "zstd") {
		key = "source.zstd_window"
	}
	if e.Need == 0 {
		return "raise " + key + " in the configuration, or compress the image with less"
	}
	return fmt.Sprintf("raise %s in the configuration to %dM, or compress the image with less", key, (e.Need+1<<20-1)>>20)
}

// isUsage reports whether an error is a wrong command line, configuration or request.
func isUsage(err error) bool {
	return is[*usageError](err) || is[*config.Error](err) || is[*config.RequestError](err)
}

// copyCode adds the state that a copy left behind to the next step. There is no slot, so errors of the medium have another hint.
func copyCode(err error) (code int, hint string) {
	e, _ := errors.AsType[*install.CopyError](err)
	code, hint = classify(e.Err)
	switch {
	case is[*update.WriteError](err), is[*update.ReadBackError](err):
		return code, "check the medium; " + e.Left
	case hint == "":
		return code, e.Left
	}
	return code, hint + "; " + e.Left
}
