package state_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"updater/boot/boottest"
	"updater/state"
)

// image01 is an image of version 0.1, which drops all other members.
type image01 struct {
	Version       string             `json:"version,omitempty"`
	RollbackIndex int64              `json:"rollback_index"`
	ImageChecksum string             `json:"image_checksum,omitempty"`
	BmapChecksum  string             `json:"bmap_checksum,omitempty"`
	Signed        time.Time          `json:"signed,omitzero"`
	At            time.Time          `json:"at"`
	Result        string             `json:"result"`
	Size          int64              `json:"size,omitempty"`
	Source        string             `json:"source,omitempty"`
	Signer        string             `json:"signer,omitempty"`
	Seconds       map[string]float64 `json:"seconds,omitempty"`
}

// version01 changes the images of a store as version 0.1 does, which keeps unknown members of the payload alone.
func version01(t *testing.T, m *boottest.Medium, change func(slots map[string]map[string]image01)) *boottest.Medium {
	t.Helper()
	area := m.Snapshot()[0]
	newer, older := area[:areaSize/2], area[areaSize/2:]
	generation := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[16:]) }
	if generation(older) > generation(newer) {
		newer, older = older, newer
	}
	var payload map[string]json.RawMessage
	do(t, json.Unmarshal(newer[32:32+binary.LittleEndian.Uint32(newer[24:])], &payload))
	var slots map[string]map[string]image01
	images := json.NewDecoder(bytes.NewReader(payload["slots"]))
	images.DisallowUnknownFields() // version 0.1 would drop them
	do(t, images.Decode(&slots))
	change(slots)
	var err error
	payload["slots"], err = json.Marshal(slots)
	do(t, err)
	data, err := json.Marshal(payload)
	do(t, err)
	putCopy(older, generation(newer)+1, data)
	return boottest.NewMedium(area)
}

// TestVersion01: members that version 0.1 does not know survive its changes, and no longer count for an image that it installed.
func TestVersion01(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	request := state.Request{Source: "https://host/release.toml", Identity: "r9", Version: "9", At: day1}
	i := image(7, state.Installed)
	i.Release, i.Created = "r7", day1
	do(t, open(t, m).Update(func(s *state.State) {
		s.Put("B", "boot", i, "")
		s.Put("B", "rootfs", i, "")
		s.Floor, s.Request = 3, &request
	}))

	m = version01(t, m, func(slots map[string]map[string]image01) { // mark good
		for role, i := range slots["B"] {
			i.Result, i.At = "good", day2
			slots["B"][role] = i
		}
	})
	i.Result, i.At = state.Good, day2
	s := open(t, m)
	if diff := cmp.Diff(state.Slot{"boot": i, "rootfs": i}, s.State().Slots["B"]); diff != "" {
		t.Errorf("after mark good (-want +got):\n%s", diff)
	}
	if got := s.State(); got.Floor != 3 || !cmp.Equal(got.Request, &request) || got.OneRelease("B", []string{"boot", "rootfs"}) != nil {
		t.Errorf("after mark good: floor %d, request %+v, %v", got.Floor, got.Request, got.OneRelease("B", []string{"boot", "rootfs"}))
	}

	for name, change := range map[string]func(*image01){
		"another map":     func(i *image01) { i.BmapChecksum = "cd" },
		"another version": func(i *image01) { i.Version = "8" },
		"another index":   func(i *image01) { i.RollbackIndex = 8 },
	} {
		replaced := version01(t, m, func(slots map[string]map[string]image01) {
			i := slots["B"]["rootfs"]
			change(&i)
			slots["B"]["rootfs"] = i
		})
		s := open(t, replaced).State()
		if b := s.Slots["B"]; b["rootfs"].Release != "" || !b["rootfs"].Created.IsZero() || b["boot"].Release != "r7" ||
			s.OneRelease("B", []string{"boot", "rootfs"}) == nil {
			t.Errorf("%s: slot B is %+v", name, b)
		}
		do(t, open(t, replaced).Update(func(s *state.State) { s.Floor = 4 })) // and forgets what no longer counts
		if n := bytes.Count(replaced.Snapshot()[0], []byte(`"r7"`)); n != 2 {
			t.Errorf("%s: %d entries of release 7; want one in each copy", name, n)
		}
	}
}
