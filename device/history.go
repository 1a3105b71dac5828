package device

import (
	"errors"
	"maps"
	"slices"
	"sort"

	"updater/device/config"
	"updater/state"
)

// History is the record of installs in the state store.
type History struct {
	Events []state.Event `json:"events"` // the newest last
}

// ReadHistory reads the history of a device. It takes no lock. Errors: [config.Error] without a state store, and those of [ReadState].
func ReadHistory(c *config.Config) (*History, error) {
	if c.State.Device == "" {
		return nil, &config.Error{Err: errors.New("no state store is configured, so nothing is remembered"), Advice: "set state in the configuration"}
	}
	known, err := ReadState(c)
	if err != nil {
		return nil, err
	}
	h := &History{Events: known.History}
	for _, slot := range slices.Sorted(maps.Keys(known.Slots)) {
		for _, role := range slices.Sorted(maps.Keys(known.Slots[slot])) {
			if i := known.Slots[slot][role]; i.Result == state.Writing { // no event was recorded yet, and none will be after a power cut
				h.Events = append(h.Events, state.Event{
					At: i.At, Slot: slot, Role: role, Version: i.Version, RollbackIndex: i.RollbackIndex, Result: i.Result,
					Detail: "under way, or ended by a power cut", Source: i.Source, Signer: i.Signer,
				})
			}
		}
	}
	sort.SliceStable(h.Events, func(i, j int) bool { return h.Events[i].At.Before(h.Events[j].At) })
	return h, nil
}
