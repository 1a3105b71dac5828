package update

import (
	"fmt"
	"strings"
	"time"

	"updater/bmap"
)

// Held is the reason why a slot makes an install unnecessary.
type Held string

// The reasons.
const (
	HeldRunning Held = "running" // the release, and it is running
	HeldNext    Held = "next"    // the release, and it boots next
	HeldWaiting Held = "waiting" // the release, downloaded and not activated
	HeldNewer   Held = "newer"   // another release that is as new or newer, see Job.IfNewer
	HeldFailed  Held = "failed"  // the release, which was tried and did not prove itself, see Job.IfNewer
)

// NothingError reports that a slot holds the release already, so that the install changed nothing.
type NothingError struct {
	Slot    string
	Version string // of the release that the slot holds
	Held    Held
}

func (e *NothingError) Error() string {
	version := ""
	if e.Version != "" {
		version = ", version " + e.Version + ","
	}
	switch e.Held {
	case HeldNewer:
		return fmt.Sprintf("nothing to do: the release in slot %s%s is as new or newer", e.Slot, version)
	case HeldFailed:
		return fmt.Sprintf("nothing to do: this release%s failed in slot %s; it is tried again without --if-newer", version, e.Slot)
	case HeldWaiting:
		return fmt.Sprintf("nothing to do: this release%s is in slot %s; updater activate %s switches to it", version, e.Slot, e.Slot)
	case HeldRunning:
		return fmt.Sprintf("nothing to do: this release%s is running in slot %s", version, e.Slot)
	}
	return fmt.Sprintf("nothing to do: this release%s is installed in slot %s, which boots next", version, e.Slot)
}

// ActiveError reports that the chosen slot is booted.
type ActiveError struct{ Slot string }

func (e *ActiveError) Error() string {
	return fmt.Sprintf("slot %s is running; only an inactive slot can be written", e.Slot)
}

// NotGoodError reports that the running slot was not marked good. The device would fall back to it if the new slot failed.
type NotGoodError struct{ Slot string }

func (e *NotGoodError) Error() string {
	return fmt.Sprintf("slot %s is running and was not marked good, but would be the only fallback", e.Slot)
}

// IncompatibleError reports a signed image for another device or role, or one that does not fit.
type IncompatibleError struct{ Reason string }

func (e *IncompatibleError) Error() string { return e.Reason }

// HardwareError reports a release for other revisions of the hardware.
type HardwareError struct{ Want, Got []string }

func (e *HardwareError) Error() string {
	if len(e.Got) == 0 {
		return fmt.Sprintf("the release is for hardware %s; the revision of this device is unknown", strings.Join(e.Want, ", "))
	}
	return fmt.Sprintf("the release is for hardware %s; this device is %s", strings.Join(e.Want, ", "), strings.Join(e.Got, ", "))
}

// Hint returns the next action.
func (e *HardwareError) Hint() string {
	if len(e.Got) == 0 {
		return "set hardware in the configuration to the revision of the device"
	}
	return "this update is not for this device"
}

// ExpiredError reports a signed document that has expired.
type ExpiredError struct{ Expires, Now time.Time }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("the update expired at %s; the trusted time is %s", e.Expires.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// RollbackError reports a document below the device's floor.
type RollbackError struct {
	Index int64 // 0 if it has none
	Floor int64
}

func (e *RollbackError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("the update has no rollback index; this device takes none below %d", e.Floor)
	}
	return fmt.Sprintf("the update's rollback index is %d; this device takes none below %d", e.Index, e.Floor)
}

// ImageError reports an image that differs from the signed bmap.
type ImageError struct{ Err error }

func (e *ImageError) Error() string { return "checking the image: " + e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// SourceError reports that the image could not be read.
type SourceError struct {
	Offset int64 // in the image, bytes
	Err    error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("reading the image at %d: %v", e.Offset, e.Err)
}
func (e *SourceError) Unwrap() error { return e.Err }

// WriteError reports that the slot could not be written or flushed. The slot stays marked bad.
type WriteError struct {
	Slot string // "" outside of an install
	Err  error
}

func (e *WriteError) Error() string {
	if e.Slot == "" { // the cause names the device
		return e.Err.Error()
	}
	return fmt.Sprintf("writing slot %s: %v", e.Slot, e.Err)
}

func (e *WriteError) Unwrap() error { return e.Err }

// ReadBackError reports a medium that does not hold the written bytes, or that cannot be read. The slot stays marked bad.
type ReadBackError struct {
	Offset int64       // of the first mismatch on the medium, bytes
	Ranges []bmap.Span // all mismatches on the medium; empty if a read failed
	Err    error       // about the first mismatch
}

func (e *ReadBackError) Error() string {
	s := fmt.Sprintf("reading back at %d: %v", e.Offset, e.Err)
	if len(e.Ranges) < 2 {
		return s
	}
	s += fmt.Sprintf("; %d ranges differ:", len(e.Ranges))
	for i, r := range e.Ranges {
		if i == 8 {
			return s + " ..."
		}
		s += fmt.Sprintf(" %d+%d", r.Offset, r.Length)
	}
	return s
}
func (e *ReadBackError) Unwrap() error { return e.Err }

// BootError reports that the boot state could not be changed or read.
type BootError struct {
	Slot, Doing string
	Err         error
}

func (e *BootError) Error() string {
	return fmt.Sprintf("boot state of slot %s: %s: %v", e.Slot, e.Doing, e.Err)
}
func (e *BootError) Unwrap() error { return e.Err }
