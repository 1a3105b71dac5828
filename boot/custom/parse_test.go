package custom

import (
	"testing"

	"updater/boot"
	"updater/boot/boottest"
)

func FuzzState(f *testing.F) {
	f.Fuzz(func(t *testing.T, out []byte) { takes(t, out) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzState", 9, 4, func(v []string) bool { return takes(t, []byte(v[0])) })
}

// takes reports whether the output of a program is a valid boot state; its next slot must then be configured.
func takes(t *testing.T, out []byte) bool {
	b := &Backend{commands: Commands{State: []string{"/x"}}, slots: []string{"A", "B"}, booted: "A"}
	st, err := b.parse(out)
	if err != nil {
		return false
	}
	if len(st.Slots) != 2 || st.Next != "" && boot.RefuseUnknown(st.Next, b.slots) != nil {
		t.Fatalf("State = %+v", st)
	}
	return true
}
