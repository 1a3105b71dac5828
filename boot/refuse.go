package boot

import (
	"fmt"
	"slices"
)

// The refusals that every backend shares. They wrap [ErrRefused]; nil is no refusal.

// RefuseRunning refuses the running slot.
func RefuseRunning(slot, booted string) error {
	if slot == booted {
		return fmt.Errorf("%w: slot %s is running", ErrRefused, slot)
	}
	return nil
}

// RefuseOthers refuses every slot but the running one.
func RefuseOthers(slot, booted string) error {
	if slot != booted {
		return fmt.Errorf("%w: slot %s is not the one that is running, which alone can be known to work", ErrRefused, slot)
	}
	return nil
}

// RefuseUnknown refuses a slot that is not among the configured ones.
func RefuseUnknown(slot string, slots []string) error {
	if !slices.Contains(slots, slot) {
		return fmt.Errorf("%w: slot %q is not among %v", ErrRefused, slot, slots)
	}
	return nil
}

// RefuseLast is the refusal to lose the last bootable slot.
func RefuseLast(slot string) error {
	return fmt.Errorf("%w: without slot %s no slot would be bootable", ErrRefused, slot)
}
