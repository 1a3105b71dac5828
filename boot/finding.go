package boot

import "fmt"

// Severity says how much a finding matters.
type Severity string

// The severities, from the least.
const (
	Info    Severity = "info"    // worth knowing; nothing is wrong
	Warning Severity = "warning" // it works, with a weaker promise or one copy less
	Failure Severity = "failure" // the next boot, or the fallback, is at risk
)

// Finding is one thing that somebody should know of the boot state.
type Finding struct {
	Severity Severity `json:"severity"`
	Evidence string   `json:"evidence"` // what was found, and where
	Remedy   string   `json:"remedy"`   // what to do about it; "" where there is nothing to do
}

// RemedyRepair is the remedy of every finding that [Backend.Repair] mends.
const RemedyRepair = "run updater doctor --repair"

func (f Finding) String() string {
	if f.Remedy == "" {
		return f.Evidence
	}
	return f.Evidence + "; " + f.Remedy
}

// Warn makes a warning.
func Warn(remedy, format string, a ...any) Finding {
	return Finding{Warning, fmt.Sprintf(format, a...), remedy}
}

// Fail makes a failure.
func Fail(remedy, format string, a ...any) Finding {
	return Finding{Failure, fmt.Sprintf(format, a...), remedy}
}

// Disagreements compares the running slot, which the stored choice does not tell, with that choice.
func Disagreements(st State) []Finding {
	var found []Finding
	fallback := false
	for _, s := range st.Slots {
		fallback = fallback || s.Name != st.Next && s.Bootable
		if s.Name != st.Booted || s.Bootable || s.Priority > 0 {
			continue
		}
		found = append(found, Warn("run updater mark good if the running system works, else activate another slot",
			"slot %s is running, yet the boot loader's state says that it cannot be chosen", s.Name))
	}
	switch {
	case st.Next == "":
		found = append(found, Finding{Failure, "the boot loader finds no slot to boot", "install into a slot, or run updater mark good on the running one"})
	case st.Booted != "" && st.Next != st.Booted:
		found = append(found, Finding{Info, fmt.Sprintf("slot %s is running and slot %s boots next", st.Booted, st.Next), ""})
	}
	if st.Next != "" && !fallback {
		found = append(found, Finding{Info, fmt.Sprintf("there is no slot to fall back to behind slot %s", st.Next), "install into the other slot"})
	}
	return found
}
