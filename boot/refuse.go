package boot

import (
	"fmt"
	"slices"
)

// The refusals below are shared by all backends. Each returns nil or an error that wraps [ErrRefused].

// RefuseRunning refuses the running slot.
func RefuseRunning(slot, booted string) error {
	if slot == booted {
		return fmt.Errorf("%w: slot %s is running", ErrRefused, slot)
	}
	return nil
}

// RefuseOthers refuses every slot except the running one.
func RefuseOthers(slot, booted string) error {
	if slot != booted {
		return fmt.Errorf("%w: slot %s is not running; only the running slot is known to work", ErrRefused, slot)
	}
	return nil
}

// RefuseUnknown refuses a slot that is not configured.
func RefuseUnknown(slot string, slots []string) error {
	if !slices.Contains(slots, slot) {
		return fmt.Errorf("%w: slot %q is not configured; expected one of %v", ErrRefused, slot, slots)
	}
	return nil
}

// RefuseNoFallback refuses a slot that is not behind another one; next is the slot that boots next.
func RefuseNoFallback(slot, next string) error {
	if next == "" || next == slot {
		return fmt.Errorf("%w: slot %s is no fallback while slot %q boots next; activate it instead", ErrRefused, slot, next)
	}
	return nil
}

// RefuseLast refuses to disable the last bootable slot.
func RefuseLast(slot string) error {
	return fmt.Errorf("%w: slot %s is the last bootable slot", ErrRefused, slot)
}

// RefuseRecovery refuses a recovery request that the boot loader cannot carry out.
func RefuseRecovery() error {
	return fmt.Errorf("%w: this boot loader cannot request the recovery; select it in the boot menu", ErrRefused)
}
