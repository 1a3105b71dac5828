package boot

import "fmt"

// Words describes the boots in State.Boots, one sentence each: what the boot loader does if no slot is marked good or
// bad in between.
func Words(st State) []string {
	left := map[string]int{}
	good := map[string]bool{}
	for _, s := range st.Slots {
		left[s.Name], good[s.Name] = s.TriesLeft, s.Good
	}
	var words []string
	for i, slot := range st.Boots {
		when := [...]string{"next boot", "the boot after"}[min(i, 1)]
		if i > 1 {
			when = fmt.Sprintf("boot %d", i+1)
		}
		what := "slot " + slot
		switch {
		case slot == "":
			what = "no slot: the boot loader's own fallback (the recovery, or it refills all tries)"
		case i > 0 && st.Boots[i-1] != slot && st.Boots[i-1] != "":
			what += fmt.Sprintf(", because slot %s was not marked good", st.Boots[i-1])
		case left[slot] < 0 || good[slot] && left[slot] == 0:
			what += ", which is good and not counted"
		case left[slot] > 0:
			left[slot]--
			what += fmt.Sprintf(", which has %s left after it", count(left[slot], "try", "tries"))
		}
		words = append(words, when+": "+what)
	}
	return words
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
