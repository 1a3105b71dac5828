package state_test

import (
	"errors"
	"fmt"
	"testing"

	"updater/internal/crashdisk"
	"updater/state"
)

// TestVolatileCache runs the life of a store on a disk with a volatile cache: after every power cut the store opens with the last
// durable state or the one being written.
func TestVolatileCache(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			disk := crashdisk.New(make([]byte, areaSize), crashdisk.Options{Sector: sector})
			dev := disk.Device("state", 0, areaSize)
			s, err := state.Open(dev, state.State{})
			do(t, err)
			do(t, s.Update(func(s *state.State) { s.Floor = 1 }))
			promised := []state.State{{}, s.State()} // the states in their order; the first is the empty area
			marks := []string{"start"}
			disk.Mark("start")
			for _, step := range life() {
				do(t, s.Update(step.change))
				disk.Mark(step.name)
				promised, marks = append(promised, s.State()), append(marks, step.name)
			}
			states, err := disk.Crashes(crashdisk.Plan{}, func(cut *crashdisk.State) error {
				passed := 0
				for passed < len(marks) && cut.Has(marks[passed]) {
					passed++
				}
				got, err := state.Open(crashdisk.New(cut.Image, crashdisk.Options{}).Device("state", 0, areaSize), state.State{})
				switch {
				case err != nil:
					return err
				case got.Lost() != "" && passed > 0:
					return errors.New(got.Lost())
				case got.State().Floor < promised[passed].Floor:
					return fmt.Errorf("the floor fell to %d", got.State().Floor)
				case equal(got.State(), promised[passed]), passed+1 < len(promised) && equal(got.State(), promised[passed+1]):
					return nil
				}
				return fmt.Errorf("after %d changes the state is %+v", passed, got.State())
			})
			do(t, err)
			t.Logf("%d states after power cuts", states)
			if least := map[int64]int{512: 200, 4096: 30}[sector]; states < least {
				t.Errorf("only %d states were tried", states)
			}
		})
	}
}
