package update

import (
	"fmt"
	"time"

	"updater/bmap"
)

// ActiveError refuses a slot that is running.
type ActiveError struct{ Slot string }

func (e *ActiveError) Error() string {
	return fmt.Sprintf("slot %s is the one that is running; an install only writes an inactive slot", e.Slot)
}

// NotGoodError refuses an install from a slot that was not marked good: it is what the device falls back to
// when the new slot fails.
type NotGoodError struct{ Slot string }

func (e *NotGoodError) Error() string {
	return fmt.Sprintf("slot %s is running and was not marked good; it would be the only one to fall back to", e.Slot)
}

// IncompatibleError says that a signed image is not for this device, role or size.
type IncompatibleError struct{ Reason string }

func (e *IncompatibleError) Error() string { return e.Reason }

// ExpiredError says that the signed document is no longer valid.
type ExpiredError struct{ Expires, Now time.Time }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("the update expired at %s; the trusted time is %s", e.Expires.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// RollbackError refuses a document below the device's floor.
type RollbackError struct {
	Index int64 // 0: it has none
	Floor int64
}

func (e *RollbackError) Error() string {
	if e.Index == 0 {
		return fmt.Sprintf("the update has no rollback index; this device takes none below %d", e.Floor)
	}
	return fmt.Sprintf("the update's rollback index is %d; this device takes none below %d", e.Index, e.Floor)
}

// ImageError says that the image is not the one that the signed bmap describes.
type ImageError struct{ Err error }

func (e *ImageError) Error() string { return "checking the image: " + e.Err.Error() }
func (e *ImageError) Unwrap() error { return e.Err }

// SourceError says that the image could not be read.
type SourceError struct {
	Offset int64 // in the image, bytes
	Err    error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("reading the image at %d: %v", e.Offset, e.Err)
}
func (e *SourceError) Unwrap() error { return e.Err }

// WriteError says that the slot could not be written or flushed. It stays marked bad.
type WriteError struct {
	Slot string
	Err  error
}

func (e *WriteError) Error() string {
	if e.Slot == "" { // a copy; the cause names the device
		return e.Err.Error()
	}
	return fmt.Sprintf("writing slot %s: %v", e.Slot, e.Err)
}

func (e *WriteError) Unwrap() error { return e.Err }

// ReadBackError says that the medium does not hold what was written. The slot stays marked bad.
type ReadBackError struct {
	Offset int64       // of the first, bytes
	Ranges []bmap.Span // all that differ; empty when a read failed or only the whole image differs
	Err    error       // about the first
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

// BootError says that the boot state could not be changed or read.
type BootError struct {
	Slot, Doing string
	Err         error
}

func (e *BootError) Error() string {
	return fmt.Sprintf("boot state of slot %s: %s: %v", e.Slot, e.Doing, e.Err)
}
func (e *BootError) Unwrap() error { return e.Err }
