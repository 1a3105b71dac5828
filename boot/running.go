package boot

import (
	"fmt"
	"slices"
	"strings"
)

// SlotRoot is how the outside may name a slot.
type SlotRoot struct {
	Name  string
	Roots []string // every spelling of its partitions: "PARTLABEL=rootfs_a", "PARTUUID=...", "/dev/vda2"
}

// Witness is a source that tells which slot is running, apart from the stored choice: a parameter of the
// kernel command line, the root device, BootCurrent, the device tree.
type Witness struct{ Source, Slot string }

// Agree is the running slot that all witnesses name. "" means that there is no witness: the system runs
// outside every slot, as a recovery does. Witnesses that disagree are an error: it never guesses.
func Agree(witnesses []Witness) (string, error) {
	slot := ""
	for i, w := range witnesses {
		if w.Slot == "" {
			continue
		}
		if slot != "" && w.Slot != slot {
			return "", fmt.Errorf("%w: the running slot is not certain: %s", ErrState, list(witnesses[:i+1]))
		}
		slot = w.Slot
	}
	return slot, nil
}

func list(witnesses []Witness) string {
	var said []string
	for _, w := range witnesses {
		said = append(said, fmt.Sprintf("%s says %s", w.Source, w.Slot))
	}
	return strings.Join(said, ", ")
}

// Booted finds the running slot in a kernel command line: see [Witnesses].
func Booted(cmdline string, slots []SlotRoot) (string, error) {
	witnesses, err := Witnesses(cmdline, slots)
	if err != nil {
		return "", err
	}
	return Agree(witnesses)
}

// Witnesses reads a kernel command line: updater.slot=, rauc.slot=, bootchooser.active= (barebox),
// androidboot.slot_suffix= (Android), and root= against the slots' partitions, of which the last counts, as
// for the kernel. A parameter that names no configured slot is an error.
func Witnesses(cmdline string, slots []SlotRoot) ([]Witness, error) {
	var found []Witness
	root := Witness{Source: "root="}
	for word := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "updater.slot", "rauc.slot", "bootchooser.active":
		case "androidboot.slot_suffix":
			if value = bySuffix(value, slots); value == "" {
				value = "?"
			}
		case "root":
			root.Slot = ByRoot(value, slots)
			continue
		default:
			continue
		}
		if !slices.ContainsFunc(slots, func(s SlotRoot) bool { return s.Name == value }) {
			return nil, fmt.Errorf("%w: the kernel command line has %s, which is no configured slot", ErrState, word)
		}
		found = append(found, Witness{Source: word, Slot: value})
	}
	return append(found, root), nil
}

// ByRoot is the slot that a spelling of the root device belongs to, "" for none.
func ByRoot(spec string, slots []SlotRoot) string {
	for _, s := range slots {
		if slices.ContainsFunc(s.Roots, func(r string) bool { return sameRoot(r, spec) }) {
			return s.Name
		}
	}
	return ""
}

// bySuffix is the one slot that Android's suffix such as "_a" names: the slot with that name, or the only
// one that ends in it.
func bySuffix(suffix string, slots []SlotRoot) string {
	letter := strings.TrimPrefix(suffix, "_")
	slot := ""
	for _, s := range slots {
		if letter == "" || !strings.EqualFold(s.Name, letter) && !strings.HasSuffix(s.Name, "_"+letter) {
			continue
		}
		if slot != "" {
			return ""
		}
		slot = s.Name
	}
	return slot
}

// sameRoot compares spellings of a partition; identifiers are hexadecimal in either case.
func sameRoot(a, b string) bool {
	if strings.HasPrefix(a, "PARTUUID=") && strings.HasPrefix(b, "PARTUUID=") {
		return strings.EqualFold(a, b)
	}
	return a == b
}
