package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"updater/boot/boottest"
	"updater/state"
)

// TestHistory: an event has the recorded fields, and only those of an installation have a cause and an origin.
func TestHistory(t *testing.T) {
	i := image(3, state.Installed)
	i.Source, i.Signer, i.Seconds = "http://host/image", "key", map[string]float64{"write": 2}
	var s state.State
	s.Put("A", "rootfs", i, "")
	s.MarkGood("A", day2)
	i.Result = state.Failed
	s.Put("A", "rootfs", i, "no space")
	event := state.Event{At: day1, Slot: "A", Role: "rootfs", Version: "1.3", RollbackIndex: 3, Result: state.Installed, Source: i.Source, Signer: "key", Seconds: i.Seconds}
	good, failed := event, event
	good.At, good.Result, good.Source, good.Signer, good.Seconds = day2, state.Good, "", "", nil
	failed.Result, failed.Detail = state.Failed, "no space"
	if diff := cmp.Diff([]state.Event{event, good, failed}, s.History); diff != "" {
		t.Error(diff)
	}
	for n := range 100 {
		s.Put("A", "rootfs", image(int64(n), state.Failed), "")
	}
	if n := len(s.History); n != 64 || s.History[63].RollbackIndex != 99 || s.History[0].RollbackIndex != 36 {
		t.Errorf("the history has %d events, from index %d to %d", n, s.History[0].RollbackIndex, s.History[n-1].RollbackIndex)
	}
}

// TestSame: records are of one installation and one result only if the document, the result and the time agree.
func TestSame(t *testing.T) {
	a := image(3, state.Installed)
	for name, change := range map[string]func(*state.Image){
		"nothing": func(*state.Image) {}, "the document": func(i *state.Image) { i.BmapChecksum = "cd" },
		"the result": func(i *state.Image) { i.Result = state.Failed }, "the time": func(i *state.Image) { i.At = day2 },
		"the zone": func(i *state.Image) { i.At = i.At.In(time.FixedZone("", 3600)) },
	} {
		b := a
		change(&b)
		if want := name == "nothing" || name == "the zone"; a.Same(b) != want || b.Same(a) != want {
			t.Errorf("%s differs: Same = %v", name, !want)
		}
	}
}

// TestFloorOfSlots: the floor rises to the lowest index of a slot that is whole, and not at all with a part of one.
func TestFloorOfSlots(t *testing.T) {
	for _, c := range []struct {
		a, b  state.Image
		floor int64
	}{
		{image(5, state.Installed), image(7, state.Installed), 5},
		{image(7, state.Installed), image(5, state.Good), 5},
		{image(5, state.Installed), image(7, state.Writing), 2},
		{image(5, state.Failed), image(7, state.Installed), 2},
		{image(1, state.Installed), image(1, state.Installed), 2},
	} {
		s := state.State{Floor: 2}
		s.Put("A", "boot", c.a, "")
		s.Put("A", "rootfs", c.b, "")
		s.MarkGood("A", day2)
		if s.Floor != c.floor {
			t.Errorf("%s %d and %s %d: the floor is %d; want %d", c.a.Result, c.a.RollbackIndex, c.b.Result, c.b.RollbackIndex, s.Floor, c.floor)
		}
	}
}

// TestPayloads: a payload with a valid checksum that is not a state is a damaged copy, never a state of zeros.
func TestPayloads(t *testing.T) {
	const rest = `,"history":[],"slots":{},"time":"2026-01-01T00:00:00Z"`
	const room = 32<<10 - 32 // of a payload
	fill := strings.Repeat(" ", room-len(`{"floor":4`+rest+`}`))
	for payload, ok := range map[string]bool{
		`{"floor":4` + rest + `}`: true, `{"floor":4` + rest + `,"later":[1]}`: true,
		`{"floor":4` + rest + fill + `}`: true, `{"floor":4` + rest + fill + ` }`: false, `{"floor":0` + rest + `}`: true,
		`{"floor":-1` + rest + `}`: false, `{"floor":"4"` + rest + `}`: false, `{"floor":4}`: false, `[]`: false, ``: false, `{"floor":4`: false,
	} {
		area := make([]byte, areaSize)
		putCopy(area, 1, []byte(payload))
		s, err := state.Open(boottest.NewMedium(area).Areas()[0], state.State{Floor: 9})
		if err != nil || (s.Lost() == "") != ok || ok && s.State().Floor != int64(payload[9]-'0') || !ok && s.State().Floor != 9 {
			t.Errorf("payload %.20s, %d bytes: floor %d, lost %q, %v", payload, len(payload), s.State().Floor, s.Lost(), err)
		}
	}
	area := make([]byte, areaSize)
	putCopy(area, 0, []byte(`{"floor":4`+rest+`}`))
	if s := open(t, boottest.NewMedium(area)); !strings.Contains(s.Lost(), "copy 1 is damaged: its generation is 0; copy 2 is empty") {
		t.Errorf("generation 0: Lost = %q", s.Lost())
	}
	putCopy(area[areaSize/2:], 1, []byte(`[]`))
	if s := open(t, boottest.NewMedium(area)); !strings.Contains(s.Lost(), "copy 2 cannot be parsed: json: cannot unmarshal array") {
		t.Errorf("an array: Lost = %q", s.Lost())
	}
}

// TestForeignMagic: bytes with the form of a copy under another magic are no copy.
func TestForeignMagic(t *testing.T) {
	area := make([]byte, areaSize)
	putCopy(area, 1, []byte(`{"floor":4,"history":[],"slots":{},"time":"2026-01-01T00:00:00Z"}`))
	end := 32 + binary.LittleEndian.Uint32(area[24:])
	area[7] = 'F'
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(area[12:], crc32.Update(crc32.Checksum(area[:12], table), table, area[16:end]))
	if s := open(t, boottest.NewMedium(area)); !strings.Contains(s.Lost(), "copy 1 has no state store signature") {
		t.Errorf("Lost = %q", s.Lost())
	}
}

// TestEveryByte: a change of any byte of a copy is a finding, and the other copy counts; the bytes after it do not matter.
func TestEveryByte(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Update(func(s *state.State) { s.Floor = 4 }))
	good := m.Snapshot()[0]
	end := 32 + int(binary.LittleEndian.Uint32(good[24:]))
	for at := range end + 8 {
		area := slices.Clone(good)
		area[at] ^= 0x10
		s, err := state.Open(boottest.NewMedium(area).Areas()[0], state.State{})
		if err != nil || s.State().Floor != 4 || strings.HasPrefix(s.Degraded(), "copy 1 ") != (at < end) || strings.HasSuffix(s.Degraded(), "; the other one counts") != (at < end) {
			t.Errorf("byte %d of %d: floor %d, degraded %q, %v", at, end, s.State().Floor, s.Degraded(), err)
		}
	}
	if want := `{"floor":4,"history":null,"slots":{},"time":"0001-01-01T00:00:00Z"}`; string(good[32:end]) != want {
		t.Errorf("the payload is %s; want %s", good[32:end], want)
	}
}

// TestOneRelease: a slot is one release if all of its roles ended with it; one without records was filled by other means.
func TestOneRelease(t *testing.T) {
	of := func(release string, r state.Result) state.Image {
		i := image(3, r)
		i.Release = release
		return i
	}
	for name, c := range map[string]struct {
		slot state.Slot
		want string
	}{
		"no records":         {nil, ""},
		"installed and good": {state.Slot{"boot": of("r", state.Installed), "rootfs": of("r", state.Good)}, ""},
		"bad":                {state.Slot{"boot": of("r", state.Bad), "rootfs": of("r", state.Good)}, ""},
		"another role more":  {state.Slot{"boot": of("r", state.Good), "rootfs": of("r", state.Good), "dtb": of("s", state.Writing)}, ""},
		"the first missing":  {state.Slot{"rootfs": of("r", state.Good)}, "its boot was never written"},
		"the second missing": {state.Slot{"boot": of("r", state.Good)}, "its rootfs was never written"},
		"being written":      {state.Slot{"boot": of("r", state.Good), "rootfs": of("r", state.Writing)}, "its rootfs is incomplete (writing)"},
		"failed":             {state.Slot{"boot": of("r", state.Failed), "rootfs": of("r", state.Good)}, "its boot is incomplete (failed)"},
		"two releases":       {state.Slot{"boot": of("r", state.Good), "rootfs": of("s", state.Good)}, "its rootfs is of another release than its boot"},
	} {
		s := state.State{Slots: map[string]state.Slot{"A": c.slot}}
		if err := s.OneRelease("A", []string{"boot", "rootfs"}); (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: OneRelease = %v; want %q", name, err, c.want)
		}
	}
}

// TestClone: a change of a copy does not show in the original, nor in the store that it was taken from.
func TestClone(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	do(t, s.Update(func(s *state.State) {
		i := image(3, state.Good)
		i.Release = "r3"
		s.Put("A", "rootfs", i, "")
		s.Damage("A", day2)
		s.Fleet.Queue(state.Report{Outcome: state.ReportGood, Release: "r3"})
		s.Fleet.Fail(state.Failure{Release: "r2"})
	}))
	change := func(st *state.State) {
		st.Slots["A"]["rootfs"] = image(9, state.Failed)
		st.Slots["B"] = nil
		st.History[0].Version, st.Damaged["A"] = "9", "r9"
		st.Fleet.Reports[0].Release, st.Fleet.Failures[0].Release = "r9", "r9"
	}
	want, fallback := open(t, m).State(), open(t, m).State()
	blank, err := state.Open(boottest.NewMedium(make([]byte, areaSize)).Areas()[0], fallback)
	do(t, err)
	if change(&fallback); !equal(blank.State(), want) {
		t.Error("a change of the fallback changed the store")
	}
	got := s.State()
	change(&got)
	if again := s.State(); !equal(again, want) {
		t.Errorf("a change of a copy changed the store (-want +got):\n%s", cmp.Diff(want, again, cmpopts.IgnoreUnexported(state.State{})))
	}
	do(t, s.Update(change))
	if again := open(t, m).State(); !equal(again, got) {
		t.Errorf("a change in place was not stored (-want +got):\n%s", cmp.Diff(got, again, cmpopts.IgnoreUnexported(state.State{})))
	}
}

// TestMarks: only whole images are marked, each once, and texts are clipped.
func TestMarks(t *testing.T) {
	var s state.State
	long := image(3, state.Installed)
	long.Version, long.Source, long.Signer = strings.Repeat("1", 256), strings.Repeat("2", 256), strings.Repeat("3", 256)
	s.Put("A", "rootfs", long, strings.Repeat("4", 256))
	got, event := s.Slots["A"]["rootfs"], s.History[0]
	for _, text := range []string{got.Version, got.Source, got.Signer, event.Version, event.Source, event.Signer, event.Detail} {
		if len(text) != 255 {
			t.Errorf("a text has %d bytes; want 255", len(text))
		}
	}
	s.Put("A", "boot", image(3, state.Failed), "")
	s.Put("A", "dtb", image(3, state.Writing), "")
	events := len(s.History)
	s.MarkGood("A", day2)
	s.MarkGood("A", day2.AddDate(0, 0, 1))
	if a := s.Slots["A"]; a["rootfs"].Result != state.Good || !a["rootfs"].At.Equal(day2) || a["boot"].Result != state.Failed || a["dtb"].Result != state.Writing ||
		len(s.History) != events+1 {
		t.Errorf("marked good: %+v, %d events", a, len(s.History))
	}
	day3 := day2.AddDate(0, 0, 2)
	s.MarkBad("A", day3)
	s.MarkBad("A", day3.AddDate(0, 0, 1))
	if a := s.Slots["A"]; a["rootfs"].Result != state.Bad || !a["rootfs"].At.Equal(day3) || a["boot"].Result != state.Failed || a["dtb"].Result != state.Writing ||
		len(s.History) != events+2 {
		t.Errorf("marked bad: %+v, %d events", a, len(s.History))
	}
}

// putCopy writes one copy of a store.
func putCopy(to []byte, generation uint64, payload []byte) {
	copy(to, "UPDSTATE")
	binary.LittleEndian.PutUint32(to[8:], 1)
	binary.LittleEndian.PutUint64(to[16:], generation)
	binary.LittleEndian.PutUint32(to[24:], uint32(len(payload)))
	copy(to[32:], payload)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(to[12:], crc32.Update(crc32.Checksum(to[:12], table), table, to[16:32+len(payload)]))
}

// TestHealFails: a bad copy that cannot be rewritten is an error, and stays one.
func TestHealFails(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Update(func(s *state.State) { s.Floor = 1 }))
	area := m.Snapshot()[0]
	area[40] ^= 1
	m = boottest.NewMedium(area)
	s := open(t, m)
	m.FailAt = m.Operations() + 1
	for range 2 {
		if err := s.Heal(); !errors.Is(err, boottest.ErrInjected) {
			t.Errorf("Heal = %v", err)
		}
		m.FailAt = 0
	}
}

// TestUnfit: a state that cannot be encoded is an error and writes nothing, even as the fallback; a change can make it fit.
func TestUnfit(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s, err := state.Open(m.Areas()[0], state.State{Floor: 3, Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)})
	do(t, err)
	for name, err := range map[string]error{"Heal": s.Heal(), "Update": s.Update(func(*state.State) {})} {
		if _, ok := errors.AsType[*state.Error](err); !ok || m.Writes() != 0 {
			t.Errorf("%s = %v, and wrote %d sectors", name, err, m.Writes())
		}
	}
	do(t, s.Update(func(s *state.State) { s.Time = day1 }))
	if got := open(t, m); got.Degraded() != "" || !equal(got.State(), state.State{Floor: 3, Time: day1}) {
		t.Errorf("the state is %+v, degraded %q", got.State(), got.Degraded())
	}
}

// TestForgets: a member that a change removes is gone when the store is opened again.
func TestForgets(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Update(func(s *state.State) {
		s.Request, s.Damaged, s.Fleet.Installs = &state.Request{Source: "https://host/release.toml"}, map[string]string{"A": "r3"}, 1
	}))
	do(t, open(t, m).Update(func(s *state.State) { s.Request, s.Damaged, s.Fleet = nil, nil, state.Fleet{} }))
	if got := open(t, m).State(); !equal(got, state.State{}) {
		t.Errorf("the state is %+v", got)
	}
}

// TestDisplayedMakesRoom: members that are only displayed make room for those that decide, also in the records that stay as they are.
func TestDisplayedMakesRoom(t *testing.T) {
	text := string(make([]byte, 200))
	for _, described := range []state.Image{{Source: text}, {Signer: text}, {Source: text, Signer: text}} {
		m := boottest.NewMedium(make([]byte, 8192))
		s := open(t, m)
		do(t, s.Update(func(s *state.State) {
			for n := range 12 {
				i := image(int64(n), state.Writing)
				i.Source, i.Signer = described.Source, described.Signer
				s.Put(fmt.Sprint("slot", n), "rootfs", i, "")
			}
		}))
		if kept := s.State().Slots["slot3"]["rootfs"]; kept.Source != described.Source || kept.Signer != described.Signer {
			t.Errorf("the state in memory lost its source or signer: %+v", kept)
		}
		if got := open(t, m).State(); len(got.Slots) != 12 || got.Slots["slot3"]["rootfs"].RollbackIndex != 3 {
			t.Errorf("the store has %d slots", len(got.Slots))
		}
	}
}

// TestNew: only a store both of whose copies are blank was never written; it has no finding.
func TestNew(t *testing.T) {
	for _, c := range []struct {
		name  string
		noise []int // offsets
		isNew bool
	}{{"blank", nil, true}, {"copy 1 damaged", []int{0}, false}, {"copy 2 damaged", []int{areaSize / 2}, false}, {"both damaged", []int{0, areaSize / 2}, false}} {
		area := make([]byte, areaSize)
		for _, off := range c.noise {
			area[off] = 0x5a
		}
		s := open(t, boottest.NewMedium(area))
		if s.New() != c.isNew || (s.Lost() == "it is empty") != c.isNew || s.Lost() == "" || s.Degraded() != "" {
			t.Errorf("%s: New %v, Lost %q, Degraded %q", c.name, s.New(), s.Lost(), s.Degraded())
		}
	}
}

// TestErasedFlash: a copy of ones was never written either.
func TestErasedFlash(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, areaSize/2)
	for _, area := range [][]byte{slices.Concat(ones, ones), slices.Concat(ones, make([]byte, len(ones)))} {
		if s := open(t, boottest.NewMedium(area)); !s.New() || s.Lost() != "it is empty" {
			t.Errorf("New %v, Lost %q", s.New(), s.Lost())
		}
	}
}

// TestDamage: a slot that was good can be restored until a person marks it bad or another release is written there.
func TestDamage(t *testing.T) {
	good := image(3, state.Good)
	good.Release = "r3"
	other := image(4, state.Writing)
	other.Release = "r4"
	for name, c := range map[string]struct {
		change func(s *state.State)
		want   string
	}{
		"again":           {func(s *state.State) { s.Damage("A", day2) }, "r3"},
		"repair":          {func(s *state.State) { good := good; good.Result = state.Writing; s.Put("A", "rootfs", good, "") }, "r3"},
		"restored":        {func(s *state.State) { s.Restored("A", day2) }, ""},
		"another release": {func(s *state.State) { s.Put("A", "rootfs", other, "") }, ""},
		"marked bad":      {func(s *state.State) { s.MarkBad("A", day2) }, ""},
	} {
		var s state.State
		s.Put("A", "rootfs", good, "")
		s.Damage("A", day2)
		if got := s.Slots["A"]["rootfs"].Result; got != state.Bad || s.Damaged["A"] != "r3" {
			t.Fatalf("a damaged slot is %s, of release %q", got, s.Damaged["A"])
		}
		if c.change(&s); s.Damaged["A"] != c.want {
			t.Errorf("%s: the slot can be restored to release %q; want %q", name, s.Damaged["A"], c.want)
		}
	}
	var s state.State
	installed := image(3, state.Installed)
	installed.Release = "r3"
	s.Put("A", "boot", installed, "")
	s.Put("A", "rootfs", good, "")
	s.Put("B", "rootfs", good, "")
	s.Damage("A", day2)
	s.Damage("B", day2)
	s.Put("A", "boot", installed, "")
	s.Put("A", "rootfs", installed, "")
	if s.Restored("A", day2); s.Slots["A"]["boot"].Result != state.Good || s.Slots["A"]["rootfs"].Result != state.Good || s.Floor != 3 || len(s.Damaged) != 1 {
		t.Errorf("a restored slot is %+v, beside %q", s.Slots["A"], s.Damaged)
	}
	s = state.State{}
	s.Put("A", "rootfs", installed, "")
	if s.Damage("A", day2); len(s.Damaged) > 0 {
		t.Errorf("a slot that was never good can be restored: %q", s.Damaged)
	}
}
