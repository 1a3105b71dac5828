// Package boot selects the slot that boots next, in the on-disk format of the boot loader. Each boot loader has its own
// sub-package, written in pure Go; none runs another program except boot/custom. Package boot/scheme is the common part
// of those that keep a priority, a number of tries and a good mark for each slot.
//
// It guarantees, for every backend except boot/custom:
//
//   - A mutation that returned nil is durable and was read back from the medium.
//   - No single torn or lost write leaves a state in which no slot boots, and [Backend.Activate] is atomic: a power cut
//     leaves the old choice or the new one. A backend without this guarantee does not set Caps.SwitchAtomic.
//   - The state is read as the boot loader reads it. Input on which boot loaders and their tools disagree is refused
//     with an error that wraps [ErrState]; it is never guessed.
//
// It does not guarantee that a slot works. The caller verifies the content of a slot before it calls Activate, and the
// boot loader counts the tries.
//
// An install calls the methods in this order:
//
//	Invalidate(target)       before the first byte of the slot changes
//	...                      write and verify the slot
//	Activate(target, tries)  last
//	MarkGood(booted)         after the next boot, once the system works
package boot

import (
	"context"
	"errors"
)

// SlotState is the state of one slot as the boot loader sees it.
type SlotState struct {
	Name      string
	Bootable  bool // the boot loader may choose it
	Good      bool // marked good since the last boot or install
	TriesLeft int  // boots left before the boot loader gives it up; -1 where boots are not counted
	Priority  int  // the highest is chosen first; 0 is outside the boot order
}

// State is the boot state of all slots.
type State struct {
	Booted   string   // running slot; "" outside every slot
	Next     string   // slot that boots next by the boot loader's own rule; "" for none
	Boots    []string // slots of the next three boots if nothing is marked in between; "" for none
	Slots    []SlotState
	Findings []Finding // problems that do not prevent booting, such as one bad copy
}

// Caps lists the capabilities of a backend.
type Caps struct {
	MaxTries          int  // the most tries that Activate accepts
	MarkGoodEveryBoot bool // every boot spends a try, even of a good slot
	SwitchAtomic      bool // a torn write cannot lose the state
	VolatileTry       bool // a power cut forgets an activation: the old slot boots
}

// Backend is the slot selection of one boot loader. It is not safe for concurrent use, and only one process may use it at
// a time. Errors wrap [ErrRefused] or [ErrState].
type Backend interface {
	Caps() Caps
	// Booted returns the running slot, "" outside every slot. It is never derived from the stored choice.
	Booted(ctx context.Context) (string, error)
	// State reads the boot state and changes nothing.
	State(ctx context.Context) (State, error)
	// Invalidate makes a slot unbootable before its first byte changes. It refuses the running slot, and the last
	// bootable slot.
	Invalidate(ctx context.Context, slot string) error
	// Activate makes a slot boot next, for tries boots, and refills the tries of the slot it falls back to.
	Activate(ctx context.Context, slot string, tries int) error
	// MarkGood marks the running slot good. It is idempotent and writes nothing if nothing changes.
	MarkGood(ctx context.Context, slot string) error
	// MarkBad makes a slot unbootable. It refuses the last bootable slot. The running slot may be marked bad; the
	// other slot boots next.
	MarkBad(ctx context.Context, slot string) error
	// Repair restores redundancy from the intact copy. State that is lost is rebuilt around the running slot only,
	// which is known to work; without one Repair refuses.
	Repair(ctx context.Context) error
}

// ErrRefused is wrapped by the error of a request that would leave the device worse off.
var ErrRefused = errors.New("refused")

// ErrState is wrapped by the error of a stored state that cannot be read, understood or written.
var ErrState = errors.New("boot state")
