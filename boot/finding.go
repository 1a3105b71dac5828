package boot

import "fmt"

// Severity ranks a [Finding].
type Severity string

// The severities, from the lowest.
const (
	Info    Severity = "info"    // nothing is wrong
	Warning Severity = "warning" // works, with less redundancy or a weaker promise
	Failure Severity = "failure" // the next boot or the fallback is at risk
)

// Finding is one observation about the boot state.
type Finding struct {
	Severity Severity `json:"severity"`
	Evidence string   `json:"evidence"` // observation, and the object it is about
	Remedy   string   `json:"remedy"`   // action to take; "" if nothing needs to be done
}

// RemedyRepair is the remedy of every finding that [Backend.Repair] repairs.
const RemedyRepair = "run updater doctor --repair"

// String returns the evidence followed by the remedy.
func (f Finding) String() string {
	if f.Remedy == "" {
		return f.Evidence
	}
	return f.Evidence + "; " + f.Remedy
}

// Warn returns a finding of severity [Warning].
func Warn(remedy, format string, a ...any) Finding {
	return Finding{Warning, fmt.Sprintf(format, a...), remedy}
}

// Fail returns a finding of severity [Failure].
func Fail(remedy, format string, a ...any) Finding {
	return Finding{Failure, fmt.Sprintf(format, a...), remedy}
}

// Disagreements compares the running slot with the stored choice, and reports a missing next slot or fallback.
func Disagreements(st State) []Finding {
	var found []Finding
	fallback := false
	for _, s := range st.Slots {
		fallback = fallback || s.Name != st.Next && s.Bootable
		if s.Name != st.Booted || s.Bootable || s.Priority > 0 {
			continue
		}
		found = append(found, Warn("run updater mark good if the running system works, otherwise activate another slot",
			"slot %s is running, but the boot state does not allow it to boot", s.Name))
	}
	switch {
	case st.Next == "":
		found = append(found, Fail("install into a slot, or run updater mark good in the running one", "the boot loader finds no slot to boot"))
	case st.Booted != "" && st.Next != st.Booted:
		found = append(found, Finding{Info, fmt.Sprintf("slot %s is running and slot %s boots next", st.Booted, st.Next), ""})
	}
	if st.Next != "" && !fallback && len(st.Slots) > 1 {
		found = append(found, Finding{Info, fmt.Sprintf("slot %s has no fallback: no other slot is bootable", st.Next), "install into the other slot"})
	}
	return found
}
