package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// maxHistory bounds the number of events; a small area keeps fewer.
const maxHistory = 64

// maxText bounds every stored text, in bytes.
const maxText = 255

// State is the content of a store.
type State struct {
	Floor   int64           // lowest rollback index that may be installed; it never falls
	Time    time.Time       // the last trusted time, UTC; zero is none
	Slots   map[string]Slot // by name
	History []Event         // the newest last, bounded
	Request *Request        // the install that the recovery is asked for; nil means none
	Fleet   Fleet           // of a device that follows a channel
	// Damaged are the slots that were good until a scrub found a range changed, with the identity of the release that makes them the
	// fallback again.
	Damaged map[string]string

	releases map[string]partOf          // of the images by SLOT/ROLE, while they are encoded
	unknown  map[string]json.RawMessage // members of a later version, kept unchanged
}

// Slot is the images of one slot, by the role of their partitions.
type Slot map[string]Image

// Result is the outcome of an installation.
type Result string

// The results. Only an image that is Installed or Good is whole.
const (
	Writing   Result = "writing"   // begun; remains after a power cut
	Failed    Result = "failed"    // ended with an error
	Installed Result = "installed" // written and read back, not yet marked good
	Good      Result = "good"      // ran and was marked good
	Bad       Result = "bad"       // marked bad
)

// Whole reports whether the image was installed completely and was not marked bad since.
func (r Result) Whole() bool { return r == Installed || r == Good }

// Image describes the image that was installed into one partition of a slot. Version 0.1 drops members that it does not know when it changes
// an image, so that the payload has Release and Created outside of it.
type Image struct {
	Version       string    `json:"version,omitempty"`
	RollbackIndex int64     `json:"rollback_index"`           // 0 means none
	ImageChecksum string    `json:"image_checksum,omitempty"` // hex, of the whole image, if the document has it
	BmapChecksum  string    `json:"bmap_checksum,omitempty"`  // hex sha256 of the signed document, which lists every range
	Release       string    `json:"release,omitempty"`        // identity of the release that it is part of
	Created       time.Time `json:"created,omitzero"`         // of that release
	Signed        time.Time `json:"signed,omitzero"`          // newest time of its signatures
	At            time.Time `json:"at"`                       // trusted time of the result
	Result        Result    `json:"result"`
	Size          int64     `json:"size,omitempty"`   // of the image, bytes
	Source        string    `json:"source,omitempty"` // path, or address without secrets
	Signer        string    `json:"signer,omitempty"` // fingerprints of the keys that signed
	// Seconds are the durations of the phases, by their names.
	Seconds map[string]float64 `json:"seconds,omitempty"`
}

// partOf is the part of an image's release that the payload keeps. It counts only for the image that it was written for: a version that does
// not know it may have installed another one since.
type partOf struct {
	Identity      string    `json:"identity"`
	Created       time.Time `json:"created,omitzero"`
	Version       string    `json:"version,omitempty"`
	RollbackIndex int64     `json:"rollback_index,omitempty"`
	BmapChecksum  string    `json:"bmap_checksum"`
}

// Same reports whether two records are of one installation and one result of it.
func (i Image) Same(o Image) bool {
	return i.BmapChecksum == o.BmapChecksum && i.Result == o.Result && i.At.Equal(o.At)
}

// Request is an install that a running system with one slot hands to its recovery.
type Request struct {
	Source   string    `json:"source"`   // address
	Identity string    `json:"identity"` // of the release that was accepted there
	Version  string    `json:"version,omitempty"`
	Attempt  int64     `json:"attempt,omitempty"` // of the channel; 0 for a person
	At       time.Time `json:"at"`
}

// Event is one line of the history.
type Event struct {
	At            time.Time `json:"at"`
	Slot          string    `json:"slot"`
	Role          string    `json:"role,omitempty"`
	Version       string    `json:"version,omitempty"`
	RollbackIndex int64     `json:"rollback_index,omitempty"`
	Result        Result    `json:"result"`
	Detail        string    `json:"detail,omitempty"` // why it failed
	Source        string    `json:"source,omitempty"` // of an installation, as in [Image]
	Signer        string    `json:"signer,omitempty"`
	// Seconds are the durations of the phases of an installation, by their names.
	Seconds map[string]float64 `json:"seconds,omitempty"`
}

// Put records the result of one partition of a slot, and adds it to the history unless it is Writing.
func (s *State) Put(slot, role string, image Image, detail string) {
	image.Version, image.Source, image.Signer = clip(image.Version), clip(image.Source), clip(image.Signer)
	if s.Slots == nil {
		s.Slots = map[string]Slot{}
	}
	if s.Slots[slot] == nil {
		s.Slots[slot] = Slot{}
	}
	s.Slots[slot][role] = image
	if s.Damaged[slot] != image.Release {
		delete(s.Damaged, slot)
	}
	if image.Result != Writing {
		s.log(slot, role, image, detail)
	}
}

// OneRelease returns nil if a slot holds one whole release by its records: no role whose install did not end, no roles of different releases.
// A slot without records was filled by other means, and passes.
func (s *State) OneRelease(slot string, roles []string) error {
	records := s.Slots[slot]
	if len(records) == 0 {
		return nil
	}
	first := records[roles[0]]
	for _, role := range roles {
		image, known := records[role]
		switch {
		case !known:
			return fmt.Errorf("its %s was never written", role)
		case image.Result == Writing || image.Result == Failed:
			return fmt.Errorf("its %s is incomplete (%s)", role, image.Result)
		case image.Release != first.Release:
			return fmt.Errorf("its %s is of another release than its %s", role, roles[0])
		}
	}
	return nil
}

// MarkGood records that a slot works, and raises the floor to its rollback index, the lowest of its images. An image that was not
// completely installed stays as it is, and then the floor does not rise.
func (s *State) MarkGood(slot string, at time.Time) {
	index, whole := int64(-1), true
	for _, role := range slices.Sorted(maps.Keys(s.Slots[slot])) {
		image := s.Slots[slot][role]
		if !image.Result.Whole() {
			whole = false
			continue
		}
		if index < 0 || image.RollbackIndex < index {
			index = image.RollbackIndex
		}
		if image.Result != Good {
			image.Result, image.At = Good, at
			s.Put(slot, role, image, "")
		}
	}
	if whole && index > s.Floor {
		s.Floor = index
	}
}

// Damage records that a slot was marked bad because its content is damaged. A slot that was good can be restored until a person marks it
// bad or another release is written there.
func (s *State) Damage(slot string, at time.Time) {
	identity := s.Damaged[slot]
	for _, image := range s.Slots[slot] {
		if image.Result == Good {
			identity = image.Release
		}
	}
	s.MarkBad(slot, at)
	if identity != "" {
		if s.Damaged == nil {
			s.Damaged = map[string]string{}
		}
		s.Damaged[slot] = identity
	}
}

// Restored records that a damaged slot is good again.
func (s *State) Restored(slot string, at time.Time) {
	delete(s.Damaged, slot)
	s.MarkGood(slot, at)
}

// MarkBad records that a slot was marked bad.
func (s *State) MarkBad(slot string, at time.Time) {
	delete(s.Damaged, slot)
	for _, role := range slices.Sorted(maps.Keys(s.Slots[slot])) {
		if image := s.Slots[slot][role]; image.Result.Whole() {
			image.Result, image.At = Bad, at
			s.Put(slot, role, image, "")
		}
	}
}

func (s *State) log(slot, role string, i Image, detail string) {
	e := Event{
		At: i.At, Slot: slot, Role: role, Version: i.Version, RollbackIndex: i.RollbackIndex, Result: i.Result, Detail: clip(detail),
	}
	if i.Result == Installed || i.Result == Failed {
		e.Source, e.Signer, e.Seconds = i.Source, i.Signer, i.Seconds
	}
	s.History = append(s.History, e)
	s.History = s.History[max(len(s.History)-maxHistory, 0):]
}

func clip(s string) string { return s[:min(len(s), maxText)] }

// Clone returns a deep copy, except of Request and of durations, which are replaced and never changed.
func (s State) Clone() State {
	slots := make(map[string]Slot, len(s.Slots))
	for name, roles := range s.Slots {
		slots[name] = maps.Clone(roles)
	}
	s.Slots, s.History, s.Fleet, s.unknown = slots, slices.Clone(s.History), s.Fleet.clone(), maps.Clone(s.unknown)
	s.Damaged = maps.Clone(s.Damaged)
	return s
}

// marshal encodes the payload, the same bytes for the same state. It drops the oldest events until it fits.
func (s State) marshal(room int) ([]byte, error) {
	s = s.splitReleases()
	for {
		members := maps.Clone(s.unknown)
		if members == nil {
			members = map[string]json.RawMessage{}
		}
		for _, m := range s.members() {
			raw, err := json.Marshal(m.value)
			if err != nil {
				return nil, err
			}
			if !m.optional || string(raw) != "null" && string(raw) != "{}" {
				members[m.name] = raw
			}
		}
		payload, err := json.Marshal(members) // sorts
		if err != nil || len(payload) <= room {
			return payload, err
		}
		if len(s.History) == 0 && (s.strip() || s.Fleet.shorten()) {
			continue
		}
		if len(s.History) == 0 {
			return nil, fmt.Errorf("state has %d bytes, expected at most %d", len(payload), room)
		}
		over := len(s.History) * (len(payload) - room) / len(payload)
		s.History = s.History[max(over, 1):]
	}
}

// splitReleases returns a copy that has the releases of its images beside them.
func (s State) splitReleases() State {
	s = s.Clone()
	for slot, roles := range s.Slots {
		for role, i := range roles {
			if i.Release == "" {
				continue
			}
			if s.releases == nil {
				s.releases = map[string]partOf{}
			}
			s.releases[slot+"/"+role] = partOf{i.Release, i.Created, i.Version, i.RollbackIndex, i.BmapChecksum}
			i.Release, i.Created = "", time.Time{}
			roles[role] = i
		}
	}
	return s
}

// joinReleases undoes splitReleases.
func (s *State) joinReleases() {
	for slot, roles := range s.Slots {
		for role, i := range roles {
			of, ok := s.releases[slot+"/"+role]
			if ok && of.Version == i.Version && of.RollbackIndex == i.RollbackIndex && of.BmapChecksum == i.BmapChecksum {
				i.Release, i.Created = of.Identity, of.Created
				roles[role] = i
			}
		}
	}
	s.releases = nil
}

// strip removes the members of the images that are only displayed, and reports whether there were any, so that the floor and all
// other decisive members fit.
func (s *State) strip() (stripped bool) {
	for _, roles := range s.Slots {
		for role, i := range roles {
			if i.Source != "" || i.Signer != "" || i.Seconds != nil {
				stripped = true
			}
			i.Source, i.Signer, i.Seconds = "", "", nil
			roles[role] = i
		}
	}
	return stripped
}

type member struct {
	name     string
	value    any
	optional bool // of later versions than the first
}

// members are the parts of the payload; unmarshal sets through the pointers.
func (s *State) members() []member {
	return []member{
		{name: "floor", value: &s.Floor}, {name: "time", value: &s.Time}, {name: "slots", value: &s.Slots}, {name: "history", value: &s.History},
		{name: "request", value: &s.Request, optional: true}, {name: "releases", value: &s.releases, optional: true},
		{name: "fleet", value: &s.Fleet, optional: true}, {name: "damaged", value: &s.Damaged, optional: true},
	}
}

// unmarshal reads a payload.
func unmarshal(payload []byte) (State, error) {
	var s State
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return State{}, err
	}
	for _, m := range s.members() {
		raw, ok := all[m.name]
		if !ok && m.optional {
			continue
		}
		if !ok {
			return State{}, fmt.Errorf("member %q is missing", m.name)
		}
		if err := json.Unmarshal(raw, m.value); err != nil {
			return State{}, fmt.Errorf("member %q: %w", m.name, err)
		}
		delete(all, m.name)
	}
	if s.Floor < 0 {
		return State{}, errors.New("floor is negative")
	}
	s.unknown = all
	s.joinReleases()
	return s, nil
}
