package boot

import "fmt"

// Forecast is one boot that is to come.
type Forecast struct {
	Boot      int    `json:"boot"`              // 1 is the next
	Slot      string `json:"slot"`              // "" means none: the boot loader's own fallback
	TriesLeft int    `json:"tries_left"`        // of the slot after it; -1 is not counted
	Because   string `json:"because,omitempty"` // slot that was not marked good, so that this one follows
}

// Forecasts describes the boots in State.Boots, which assume that no slot is marked good or bad in between.
func Forecasts(st State) []Forecast {
	left := map[string]int{"": -1}
	good := map[string]bool{}
	for _, s := range st.Slots {
		left[s.Name], good[s.Name] = s.TriesLeft, s.Good
	}
	all := []Forecast{}
	for i, slot := range st.Boots {
		f := Forecast{Boot: i + 1, Slot: slot, TriesLeft: -1}
		if slot != "" && i > 0 && st.Boots[i-1] != slot {
			f.Because = st.Boots[i-1]
		}
		if left[slot] > 0 {
			left[slot]--
			f.TriesLeft = left[slot]
		} else if left[slot] == 0 && !good[slot] {
			f.TriesLeft = 0
		}
		all = append(all, f)
	}
	return all
}

// String is the forecast as one sentence.
func (f Forecast) String() string {
	when := fmt.Sprintf("boot %d", f.Boot)
	if f.Boot <= 2 {
		when = [...]string{"next boot", "the boot after"}[f.Boot-1]
	}
	switch {
	case f.Slot == "":
		return when + ": no slot: the boot loader's own fallback (the recovery, or it refills all tries)"
	case f.Because != "":
		return fmt.Sprintf("%s: slot %s, because slot %s was not marked good", when, f.Slot, f.Because)
	case f.TriesLeft < 0:
		return fmt.Sprintf("%s: slot %s, which is good and not counted", when, f.Slot)
	}
	return fmt.Sprintf("%s: slot %s, which has %s left after it", when, f.Slot, count(f.TriesLeft, "try", "tries"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
