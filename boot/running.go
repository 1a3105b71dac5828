package boot

import (
	"fmt"
	"slices"
	"strings"
)

// SlotRoot lists the names by which the system may refer to a slot.
type SlotRoot struct {
	Name  string
	Roots []string // every spelling of its partitions: "PARTLABEL=rootfs_a", "PARTUUID=...", "/dev/vda2"
}

// Witness is evidence, independent of the stored choice, of which slot is running: a parameter of the kernel command
// line, the root device, BootCurrent, the device tree.
type Witness struct{ Source, Slot string }

// Agree returns the running slot that all witnesses name, "" if no witness names one: the system runs outside every slot,
// as the recovery does. If witnesses disagree, the error wraps [ErrState].
func Agree(witnesses []Witness) (string, error) {
	slot := ""
	for i, w := range witnesses {
		if w.Slot == "" {
			continue
		}
		if slot != "" && w.Slot != slot {
			return "", fmt.Errorf("%w: the running slot is ambiguous: %s", ErrState, list(witnesses[:i+1]))
		}
		slot = w.Slot
	}
	return slot, nil
}

func list(witnesses []Witness) string {
	var names []string
	for _, w := range witnesses {
		if w.Slot != "" {
			names = append(names, fmt.Sprintf("%s names slot %s", w.Source, w.Slot))
		}
	}
	return strings.Join(names, ", ")
}

// Booted returns the running slot according to a kernel command line; see [Witnesses] and [Agree].
func Booted(cmdline string, slots []SlotRoot) (string, error) {
	witnesses, err := Witnesses(cmdline, slots)
	if err != nil {
		return "", err
	}
	return Agree(witnesses)
}

// Witnesses returns the witnesses on a kernel command line: updater.slot=, rauc.slot=, bootchooser.active= (barebox),
// androidboot.slot_suffix= (Android), and root=, which is matched against the partitions of the slots. The last root=
// counts, as it does for the kernel. If a parameter names a slot that is not configured, the error wraps [ErrState].
func Witnesses(cmdline string, slots []SlotRoot) ([]Witness, error) {
	var found []Witness
	root := Witness{Source: "root="}
	for word := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "updater.slot", "rauc.slot", "bootchooser.active":
		case "androidboot.slot_suffix":
			value = bySuffix(value, slots)
		case "root":
			root.Slot = ByRoot(value, slots)
			continue
		default:
			continue
		}
		if !slices.ContainsFunc(slots, func(s SlotRoot) bool { return s.Name == value }) {
			return nil, fmt.Errorf("%w: the kernel command line has %s, but that slot is not configured", ErrState, word)
		}
		found = append(found, Witness{Source: word, Slot: value})
	}
	return append(found, root), nil
}

// ByRoot returns the slot of a root device in any spelling, "" for none.
func ByRoot(spec string, slots []SlotRoot) string {
	for _, s := range slots {
		if slices.ContainsFunc(s.Roots, func(r string) bool { return sameRoot(r, spec) }) {
			return s.Name
		}
	}
	return ""
}

// bySuffix returns the slot that an Android suffix such as "_a" names: the only slot named a, or whose name ends in _a;
// "" if there is none or more than one.
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

// sameRoot compares two spellings of a partition. The hexadecimal digits of a PARTUUID match in either case.
func sameRoot(a, b string) bool {
	if strings.HasPrefix(a, "PARTUUID=") && strings.HasPrefix(b, "PARTUUID=") {
		return strings.EqualFold(a, b)
	}
	return a == b
}
