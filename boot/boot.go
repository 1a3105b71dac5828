// Package boot is slot selection: which slot the boot loader chooses, on the boot loader's own on-disk
// format. There is one sub-package per boot loader, in pure Go, with no other program.
//
// Every mutation is durable and was read back from the medium when it returns nil. Each backend keeps: no
// single torn or lost write leaves a state without a bootable slot, and [Backend.Activate] is one
// old-or-new change.
package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Area is a fixed-size place on a medium that holds boot state: a raw window of a disk, or the blocks of one
// file. Writing never changes its size.
type Area interface {
	io.ReaderAt
	io.WriterAt
	Size() int64                                 // bytes
	Sync() error                                 // what was written is on stable storage, the drive's cache flushed
	ReadBackAt(p []byte, off int64) (int, error) // from the medium, past the page cache
	String() string                              // names it in errors
}

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
	Booted   string // running slot; "" outside every slot
	Next     string // what the boot loader chooses next, by its own rule; "" is none
	Slots    []SlotState
	Degraded []string // what is wrong though it works, such as one bad copy
}

// Caps says what a backend can promise.
type Caps struct {
	MaxTries          int  // most tries that Activate takes
	MarkGoodEveryBoot bool // the boot loader spends a try on every boot, also of a good slot
	SwitchAtomic      bool // a torn write of the switch cannot lose the state
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
	// Repair restores redundancy where the state is whole, and refuses to invent what is lost.
	Repair(ctx context.Context) error
}

// ErrRefused is wrapped by every request that would leave the device worse off.
var ErrRefused = errors.New("refused")

// ErrState is wrapped when the stored state cannot be read, understood or written.
var ErrState = errors.New("boot state")

// WriteVerified writes p at off of the area, flushes, and compares what the medium has then. An error is
// indeterminate: the medium may hold the old or the new bytes. It is never retried.
func WriteVerified(a Area, p []byte, off int64) error {
	if _, err := a.WriteAt(p, off); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := a.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	got := make([]byte, len(p))
	if _, err := a.ReadBackAt(got, off); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if !bytes.Equal(got, p) {
		return fmt.Errorf("%w: %s does not hold what was written at %d", ErrState, a, off)
	}
	return nil
}

// SlotRoot is how root= may name a slot on the kernel command line.
type SlotRoot struct {
	Name  string
	Roots []string // every spelling of its partitions: "PARTLABEL=rootfs_a", "PARTUUID=...", "/dev/vda2"
}

// Booted finds the running slot in a kernel command line: by updater.slot=, rauc.slot=, else by root=
// against the slots' partitions. "" means that the system runs outside every slot, as a recovery does. An
// unknown name, and parameters that disagree, are errors: it never guesses.
func Booted(cmdline string, slots []SlotRoot) (string, error) {
	found := map[string]string{} // slot to the parameter that named it
	byRoot := ""
	for word := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "updater.slot", "rauc.slot":
			if !slices.ContainsFunc(slots, func(s SlotRoot) bool { return s.Name == value }) {
				return "", fmt.Errorf("%w: the kernel command line has %s, which is no configured slot", ErrState, word)
			}
			found[value] = word
		case "root":
			byRoot = ""
			for _, s := range slots {
				if slices.ContainsFunc(s.Roots, func(r string) bool { return sameRoot(r, value) }) {
					byRoot = s.Name
				}
			}
		}
	}
	if len(found) > 1 {
		return "", fmt.Errorf("%w: the kernel command line names several running slots: %v", ErrState, found)
	}
	for slot, word := range found {
		if byRoot != "" && byRoot != slot {
			return "", fmt.Errorf("%w: the kernel command line has %s, but its root= is slot %s", ErrState, word, byRoot)
		}
		return slot, nil
	}
	return byRoot, nil
}

// sameRoot compares spellings of a partition; identifiers are hexadecimal in either case.
func sameRoot(a, b string) bool {
	if strings.HasPrefix(a, "PARTUUID=") && strings.HasPrefix(b, "PARTUUID=") {
		return strings.EqualFold(a, b)
	}
	return a == b
}
