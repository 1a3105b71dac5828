// Package boot is slot selection: which slot the boot loader chooses, on the boot loader's own on-disk
// format. There is one sub-package per boot loader, in pure Go, with no other program; boot/scheme holds
// what those have in common that keep a table of priorities, tries and a good mark.
//
// Every mutation is durable and was read back from the medium when it returns nil. Each backend keeps: no
// single torn or lost write leaves a state without a bootable slot, and [Backend.Activate] is one
// old-or-new change.
package boot

import (
	"context"
	"errors"
)

// SlotState is one slot as the boot loader sees it.
type SlotState struct {
	Name      string
	Bootable  bool // the boot loader may choose it
	Good      bool // it was marked good since its last boot or install
	TriesLeft int  // boots left before the boot loader gives it up; -1 where they are not counted
	Priority  int  // higher is chosen first; 0 is not in the order
}

// State is the whole boot state.
type State struct {
	Booted   string   // running slot; "" outside every slot
	Next     string   // what the boot loader chooses next, by its own rule; "" is none
	Boots    []string // its choice at the next three boots when nobody marks anything in between; "" is none
	Slots    []SlotState
	Findings []Finding // what is wrong though it works, such as one bad copy
}

// Caps says what a backend can promise.
type Caps struct {
	MaxTries          int  // most tries that Activate takes
	MarkGoodEveryBoot bool // the boot loader spends a try on every boot, also of a good slot
	SwitchAtomic      bool // a torn write of the switch cannot lose the state
	VolatileTry       bool // an activation is forgotten with the power: the old slot boots then
}

// Backend is the slot selection of one boot loader. Not safe for concurrent use, and only one process may
// use one at a time. Errors wrap [ErrRefused] or [ErrState].
type Backend interface {
	Caps() Caps
	// Booted is the running slot, "" outside every slot. It never comes from the stored choice.
	Booted(ctx context.Context) (string, error)
	// State reads and changes nothing.
	State(ctx context.Context) (State, error)
	// Invalidate makes a slot unbootable before its first byte changes. It refuses the booted slot, and one
	// without which nothing is bootable any more.
	Invalidate(ctx context.Context, slot string) error
	// Activate makes a slot the next choice for tries boots, and refills the tries of the slot behind it.
	Activate(ctx context.Context, slot string, tries int) error
	// MarkGood says that the booted slot works. It is idempotent and writes nothing when nothing changes.
	MarkGood(ctx context.Context, slot string) error
	// MarkBad makes a slot unbootable; it refuses one without which nothing is bootable. The booted slot may
	// be marked bad, so that the next boot takes the other.
	MarkBad(ctx context.Context, slot string) error
	// Repair restores redundancy where the state is whole. What is lost it restores only from what is known
	// for sure, the running slot; else it refuses.
	Repair(ctx context.Context) error
}

// ErrRefused is wrapped by every request that would leave the device worse off.
var ErrRefused = errors.New("refused")

// ErrState is wrapped when the stored state cannot be read, understood or written.
var ErrState = errors.New("boot state")
