package state_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"updater/boot/boottest"
	"updater/state"
)

var (
	day1 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day2 = day1.AddDate(0, 0, 1)
)

const areaSize = 64 << 10

func image(index int64, r state.Result) state.Image {
	return state.Image{Version: fmt.Sprintf("1.%d", index), RollbackIndex: index, BmapChecksum: strings.Repeat("ab", 32), Signed: day1, At: day1,
		Result: r}
}

// equal compares the exported parts.
func equal(a, b state.State) bool {
	return cmp.Equal(a, b, cmpopts.IgnoreUnexported(state.State{}), cmpopts.EquateEmpty())
}

func open(t *testing.T, m *boottest.Medium) *state.Store {
	t.Helper()
	s, err := state.Open(m.Areas()[0], state.State{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// step is one change of the store's life.
type step struct {
	name   string
	change func(*state.State)
}

// life is the changes of a device: two updates that work, one that does not.
func life() []step {
	put := func(slot string, i state.Image, detail string) func(*state.State) {
		return func(s *state.State) { s.Put(slot, "rootfs", i, detail) }
	}
	return []step{
		{"begin A", put("A", image(3, state.Writing), "")},
		{"installed A", put("A", image(3, state.Installed), "")},
		{"good A", func(s *state.State) { s.MarkGood("A", day2); s.Time = day2 }},
		{"begin B", put("B", image(5, state.Writing), "")},
		{"installed B", put("B", image(5, state.Installed), "")},
		{"good B", func(s *state.State) { s.MarkGood("B", day2) }},
		{"begin A again", put("A", image(7, state.Writing), "")},
		{"failed A", put("A", image(7, state.Failed), "writing slot A: no space left on device")},
		{"bad B", func(s *state.State) { s.MarkBad("B", day2) }},
	}
}

func TestLife(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	if s.Lost() != "it is empty" {
		t.Errorf("Lost() = %q of an empty area", s.Lost())
	}
	floors := map[string]int64{"good A": 3, "begin B": 3, "installed B": 3, "good B": 5, "failed A": 5, "bad B": 5}
	for _, step := range life() {
		do(t, s.Update(step.change))
		if want, ok := floors[step.name]; ok && s.State().Floor != want {
			t.Errorf("%s: floor is %d; want %d", step.name, s.State().Floor, want)
		}
		again := open(t, m)
		if !equal(again.State(), s.State()) || again.Lost() != "" {
			t.Fatalf("%s: opened again it differs: %s", step.name, cmp.Diff(s.State(), again.State(), cmpopts.IgnoreUnexported(state.State{})))
		}
	}
	got := s.State()
	if a, b := got.Slots["A"]["rootfs"], got.Slots["B"]["rootfs"]; a.Result != state.Failed || b.Result != state.Bad || b.Version != "1.5" {
		t.Errorf("slots are %+v", got.Slots)
	}
	var told []string
	for _, e := range got.History {
		told = append(told, fmt.Sprintf("%s %s %s %s", e.Slot, e.Version, e.Result, e.Detail))
	}
	want := []string{"A 1.3 installed ", "A 1.3 good ", "B 1.5 installed ", "B 1.5 good ", "A 1.7 failed writing slot A: no space left on device",
		"B 1.5 bad "}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("history differs (-want +got):\n%s", diff)
	}
}

// TestFloor: the floor rises at mark-good of a whole image with a higher index, and never otherwise.
func TestFloor(t *testing.T) {
	for _, tc := range []struct {
		name   string
		images map[string]state.Image
		want   int64
	}{
		{"higher", map[string]state.Image{"rootfs": image(9, state.Installed)}, 9},
		{"good before", map[string]state.Image{"rootfs": image(9, state.Good)}, 9},
		{"lower", map[string]state.Image{"rootfs": image(3, state.Installed)}, 5},
		{"the lowest of several", map[string]state.Image{"rootfs": image(9, state.Installed), "kernel": image(7, state.Good)}, 7},
		{"one has none", map[string]state.Image{"rootfs": image(9, state.Installed), "kernel": image(0, state.Installed)}, 5},
		{"being written", map[string]state.Image{"rootfs": image(9, state.Writing)}, 5},
		{"failed", map[string]state.Image{"rootfs": image(9, state.Failed)}, 5},
		{"one failed", map[string]state.Image{"rootfs": image(9, state.Installed), "kernel": image(9, state.Failed)}, 5},
		{"nothing known", nil, 5},
	} {
		s := state.State{Floor: 5}
		for role, i := range tc.images {
			s.Put("A", role, i, "")
		}
		if s.Floor != 5 {
			t.Errorf("%s: an installation raised the floor to %d", tc.name, s.Floor)
		}
		if s.MarkGood("A", day2); s.Floor != tc.want {
			t.Errorf("%s: floor is %d; want %d", tc.name, s.Floor, tc.want)
		}
	}
}

// TestFloorNeverFalls: not even a change that asks for it lowers the floor.
func TestFloorNeverFalls(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	do(t, s.Update(func(s *state.State) { s.Floor = 7 }))
	do(t, s.Update(func(s *state.State) { s.Floor = 2 }))
	if got := open(t, m).State().Floor; got != 7 {
		t.Errorf("the floor fell to %d", got)
	}
}

// TestPowerCuts: in every state that a cut leaves there is the old state or the new one, and the floor is never lower.
func TestPowerCuts(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Heal())
	if s := open(t, m); s.New() || s.Lost() != "" || s.Degraded() != "" {
		t.Errorf("a store that was healed before its first change: new %v, lost %q, degraded %q", s.New(), s.Lost(), s.Degraded())
	}
	states := 0
	for _, step := range life() {
		before := open(t, m).State()
		m = boottest.NewMedium(m.Snapshot()...)
		s := open(t, m)
		do(t, s.Update(step.change))
		m.Crashes(func(areas [][]byte) {
			states++
			cut := boottest.NewMedium(areas...)
			got := open(t, cut)
			switch st := got.State(); {
			case got.Lost() != "":
				t.Fatalf("%s: after a power cut %s", step.name, got.Lost())
			case st.Floor < before.Floor:
				t.Fatalf("%s: after a power cut the floor fell from %d to %d", step.name, before.Floor, st.Floor)
			case !equal(st, before) && !equal(st, s.State()):
				t.Fatalf("%s: after a power cut the state is neither old nor new: %+v", step.name, st)
			}
			do(t, got.Heal())
			if healed := open(t, cut); healed.Degraded() != "" || !equal(healed.State(), got.State()) {
				t.Fatalf("%s: after healing: %s", step.name, healed.Degraded())
			}
		})
	}
	t.Logf("%d states after power cuts", states)
	if states < 80 {
		t.Errorf("only %d states were tried", states)
	}
}

// TestFailures lets each operation of a change fail: the error is permanent, and the old state or the new one remains.
func TestFailures(t *testing.T) {
	start := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, start).Update(func(s *state.State) { s.Floor = 1 }))
	raise := func(s *state.State) { s.Floor = 2 }
	for n := 1; ; n++ {
		m := boottest.NewMedium(start.Snapshot()...)
		s := open(t, m)
		m.FailAt = m.Operations() + n
		err := s.Update(raise)
		if m.Operations() < m.FailAt {
			do(t, err)
			if n < 7 {
				t.Errorf("only %d operations were tried", n-1)
			}
			return
		}
		if _, ok := errors.AsType[*state.Error](err); !ok || !errors.Is(err, boottest.ErrInjected) {
			t.Fatalf("operation %d failed: Update() = %v", n, err)
		}
		writes := m.Writes()
		for name, again := range map[string]error{
			"the same change": s.Update(raise), "no change": s.Update(func(*state.State) {}), "healing": s.Heal(),
		} {
			if again != err {
				t.Errorf("operation %d failed: %s returns %v; want %v", n, name, again, err)
			}
		}
		if m.Writes() != writes {
			t.Errorf("operation %d failed: the store was written again", n)
		}
		m.FailAt = 0
		if got := open(t, m).State().Floor; got != 1 && got != 2 {
			t.Errorf("operation %d failed: the floor is %d", n, got)
		}
	}
}

// TestLies checks that the read-back detects a medium that confirms writes and drops them.
func TestLies(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	m.Lie = true
	if err := s.Update(func(s *state.State) { s.Floor = 1 }); err == nil || !strings.Contains(err.Error(), "does not hold what was written") {
		t.Errorf("Update() = %v on a medium that loses writes", err)
	}
}

// TestLostCopies damages one copy in every way, and the floor stays; then both, and the fallback is used and reported.
func TestLostCopies(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	for _, step := range life() {
		do(t, s.Update(step.change))
	}
	do(t, s.Update(func(s *state.State) { s.Floor = 9 }))
	good := m.Snapshot()[0]
	wipe := func(fill byte) func([]byte) {
		return func(b []byte) { copy(b, bytes.Repeat([]byte{fill}, len(b))) }
	}
	half := len(good) / 2
	for name, harm := range map[string]func([]byte){
		"zeros": wipe(0), "ones": wipe(0xff), "noise": wipe(0x5a),
		"a bit of the payload": func(b []byte) { b[100] ^= 4 },
		"its generation":       func(b []byte) { b[17] ^= 1 },
		"its format":           func(b []byte) { b[8]++ },
		"its length":           func(b []byte) { b[27] = 0xff },
		"torn":                 func(b []byte) { clear(b[512:]) },
	} {
		for i := range 2 {
			area := bytes.Clone(good)
			harm(area[i*half : (i+1)*half])
			m := boottest.NewMedium(area)
			s := open(t, m)
			if s.State().Floor != 9 || s.Lost() != "" || !strings.Contains(s.Degraded(), fmt.Sprintf("copy %d", i+1)) {
				t.Errorf("%s of copy %d: floor %d, lost %q, degraded %q", name, i+1, s.State().Floor, s.Lost(), s.Degraded())
			}
			do(t, s.Heal())
			if s := open(t, m); s.Degraded() != "" || s.State().Floor != 9 {
				t.Errorf("%s of copy %d: after healing %q, floor %d", name, i+1, s.Degraded(), s.State().Floor)
			}
		}
		area := bytes.Clone(good)
		harm(area[:half])
		harm(area[half:])
		m := boottest.NewMedium(area)
		s, err := state.Open(m.Areas()[0], state.State{Floor: 4})
		do(t, err)
		if s.Lost() == "" || s.State().Floor != 4 {
			t.Errorf("%s of both: lost %q, floor %d; want the fallback", name, s.Lost(), s.State().Floor)
		}
		do(t, s.Update(func(st *state.State) { st.Put("B", "rootfs", image(6, state.Writing), "") }))
		if s := open(t, m); s.Lost() != "" || s.Degraded() != "" || s.State().Floor != 4 {
			t.Errorf("%s of both: after an update %q %q, floor %d", name, s.Lost(), s.Degraded(), s.State().Floor)
		}
	}
}

// TestLaterFormat checks that a copy of a later version does not count as damaged, and that added members are kept.
func TestLaterFormat(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Update(func(s *state.State) { s.Floor = 3 }))
	reseal := func(area []byte, edit func(header []byte, payload map[string]any)) []byte {
		area = bytes.Clone(area)
		for at := 0; at < len(area); at += len(area) / 2 {
			b := area[at:]
			var payload map[string]any
			do(t, json.Unmarshal(b[32:32+binary.LittleEndian.Uint32(b[24:])], &payload))
			edit(b[:32], payload)
			text, err := json.Marshal(payload)
			do(t, err)
			copy(b[32:], text)
			binary.LittleEndian.PutUint32(b[24:], uint32(len(text)))
			table := crc32.MakeTable(crc32.Castagnoli)
			binary.LittleEndian.PutUint32(b[12:], crc32.Update(crc32.Checksum(b[:12], table), table, b[16:32+len(text)]))
		}
		return area
	}
	later := boottest.NewMedium(reseal(m.Snapshot()[0], func(h []byte, _ map[string]any) { h[8] = 2 }))
	if _, err := state.Open(later.Areas()[0], state.State{}); err == nil || !strings.Contains(err.Error(), "later format: 2") {
		t.Errorf("Open() = %v of a later format", err)
	}
	for copy := range 2 {
		one := m.Snapshot()[0]
		whole := later.Snapshot()[0]
		at := copy * len(one) / 2
		if _, err := state.Open(boottest.NewMedium(slices.Concat(one[:at], whole[at:at+len(one)/2], one[at+len(one)/2:])).Areas()[0], state.State{}); err == nil ||
			!strings.Contains(err.Error(), fmt.Sprintf("copy %d is in a later format: 2, expected 1", copy+1)) {
			t.Errorf("Open() = %v of a later format in copy %d", err, copy+1)
		}
	}
	added := boottest.NewMedium(reseal(m.Snapshot()[0], func(_ []byte, p map[string]any) { p["later"] = "north" }))
	for _, at := range []time.Time{day2, day1} {
		do(t, open(t, added).Update(func(s *state.State) { s.Time = at }))
	}
	if n := bytes.Count(added.Snapshot()[0], []byte(`"later":"north"`)); n != 2 {
		t.Errorf("a member that is not known is in %d copies; want it in both", n)
	}
}

// TestBounds: the smallest area works, with less history; a smaller one is refused; texts are clipped.
func TestBounds(t *testing.T) {
	m := boottest.NewMedium(make([]byte, 8192))
	s := open(t, m)
	for i := range 200 {
		do(t, s.Update(func(s *state.State) {
			s.Put("A", "rootfs", image(int64(i), state.Failed), strings.Repeat("x", 1000))
		}))
	}
	got := open(t, m).State()
	if n := len(got.History); n < 5 || n > 64 || got.History[n-1].RollbackIndex != 199 || len(got.History[0].Detail) != 255 {
		t.Errorf("history has %d events, the last of index %d", n, got.History[n-1].RollbackIndex)
	}
	if _, err := state.Open(boottest.NewMedium(make([]byte, 8191)).Areas()[0], state.State{}); err == nil ||
		!strings.Contains(err.Error(), "expected at least 8192") {
		t.Errorf("Open() = %v of a small area", err)
	}
	inMemory := s.State()
	err := s.Update(func(s *state.State) {
		for i := range 100 {
			s.Put(fmt.Sprint("slot", i), "rootfs", image(1, state.Installed), "")
		}
	})
	if err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("Update() = %v with more than fits", err)
	}
	if _, ok := errors.AsType[*state.Error](err); !ok || !equal(open(t, m).State(), got) || !equal(s.State(), inMemory) {
		t.Errorf("Update() = %T; want the state as it was", err)
	}
	if err := s.Update(func(s *state.State) { s.Time = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) }); err == nil {
		t.Error("a time that cannot be encoded was stored")
	} else if _, ok := errors.AsType[*state.Error](err); !ok {
		t.Errorf("Update() = %T", err)
	}
	do(t, s.Update(func(s *state.State) { s.Floor = 8 })) // nothing was written, so the store still works
	if floor := open(t, m).State().Floor; floor != 8 {
		t.Errorf("the floor is %d", floor)
	}
}

func TestNoNeedlessWrite(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	do(t, s.Update(func(s *state.State) { s.Put("A", "rootfs", image(3, state.Installed), "") }))
	do(t, s.Update(func(s *state.State) { s.MarkGood("A", day2) }))
	before := m.Writes()
	do(t, s.Update(func(s *state.State) { s.MarkGood("A", day2.AddDate(0, 0, 9)) }))
	do(t, s.Heal())
	if m.Writes() != before {
		t.Errorf("mark good of a good slot wrote %d sectors", m.Writes()-before)
	}
	const page = 4096 / 512
	do(t, s.Update(func(s *state.State) { s.MarkBad("A", day2) }))
	if n := m.Writes() - before; n != page {
		t.Errorf("a change wrote %d sectors; want one copy of %d", n, page)
	}
	do(t, s.Update(func(s *state.State) { s.Floor = 9 }))
	if n := m.Writes() - before; n != 3*page {
		t.Errorf("a change, and a floor, wrote %d sectors; want one copy and both", n)
	}
}

// TestFile runs a life on a real file.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	do(t, os.WriteFile(path, make([]byte, state.FileSize), 0o600))
	for _, step := range life() {
		s, err := state.Open(boottest.OpenFileArea(t, path), state.State{})
		do(t, err)
		do(t, s.Update(step.change))
	}
	s, err := state.Open(boottest.OpenFileArea(t, path), state.State{})
	do(t, err)
	if s.State().Floor != 5 || s.Degraded() != "" {
		t.Errorf("floor %d, %s", s.State().Floor, s.Degraded())
	}
}

// FuzzOpen: no content of the medium panics, and a store that opens can be changed and opened again.
func FuzzOpen(f *testing.F) {
	m := boottest.NewMedium(make([]byte, 8192))
	s, err := state.Open(m.Areas()[0], state.State{})
	if err != nil {
		f.Fatal(err)
	}
	for _, step := range life() {
		if err := s.Update(step.change); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(m.Snapshot()[0])
	f.Add(make([]byte, 8192))
	f.Add([]byte("UPDSTATE"))
	f.Fuzz(func(t *testing.T, data []byte) {
		area := make([]byte, 8192)
		copy(area, data)
		m := boottest.NewMedium(area)
		s, err := state.Open(m.Areas()[0], state.State{Floor: 1})
		if err != nil {
			return
		}
		if err := s.Update(func(s *state.State) { s.Put("A", "rootfs", image(1, state.Writing), "") }); err != nil {
			return // the content may leave no room
		}
		again, err := state.Open(m.Areas()[0], state.State{})
		if err != nil || !equal(again.State(), s.State()) {
			t.Fatalf("opened again: %v", err)
		}
	})
}

// Texts for people make room for members that decide: a small store that is full of them still accepts a floor.
func TestDescriptionsMakeRoom(t *testing.T) {
	m := boottest.NewMedium(make([]byte, 8<<10))
	s := open(t, m)
	for n := range int64(40) {
		for _, slot := range []string{"A", "B", "C"} {
			i := image(n, state.Installed)
			i.Source, i.Signer, i.Seconds = strings.Repeat("\x01", 300), strings.Repeat("F", 300), map[string]float64{"write": 1.5}
			do(t, s.Update(func(st *state.State) { st.Put(slot, "rootfs", i, strings.Repeat("x", 300)) }))
			do(t, s.Update(func(st *state.State) { st.MarkGood(slot, day2) }))
		}
	}
	got := open(t, m)
	if st := got.State(); st.Floor != 39 || got.Lost() != "" || len(st.Slots) != 3 || st.Slots["B"]["rootfs"].Result != state.Good {
		t.Errorf("floor %d, lost %q, %+v", st.Floor, got.Lost(), st.Slots)
	}
}

// TestOrderOfRoom: events make room first, from the oldest on, then the displayed members, then reports, then failures; a payload of the largest
// size loses nothing.
func TestOrderOfRoom(t *testing.T) {
	const room = 4096 - 32
	m := boottest.NewMedium(make([]byte, 8192))
	s := open(t, m)
	fill := func(n int) (state.State, int) {
		t.Helper()
		do(t, s.Update(func(s *state.State) { s.Request = &state.Request{Source: strings.Repeat("x", n)} }))
		area := m.Snapshot()[0]
		at := 0
		if binary.LittleEndian.Uint64(area[4096+16:]) > binary.LittleEndian.Uint64(area[16:]) {
			at = 4096
		}
		return open(t, m).State(), int(binary.LittleEndian.Uint32(area[at+24:]))
	}
	do(t, s.Update(func(s *state.State) {
		for _, role := range []string{"boot", "rootfs"} {
			i := image(3, state.Installed)
			i.Source, i.Signer, i.Seconds = "source", "signer", map[string]float64{"write": 1}
			s.Put("A", role, i, "")
			s.Fleet.Queue(state.Report{Outcome: state.ReportGood, Release: role})
			s.Fleet.Fail(state.Failure{Release: role})
		}
	}))
	_, used := fill(1)
	n := 1 + room - used
	if got, size := fill(n); size != room || len(got.History) != 2 {
		t.Errorf("a payload of %d bytes of %d keeps %d events", size, room, len(got.History))
	}
	if got, size := fill(n + 1); size > room || len(got.History) != 1 || got.History[0].Role != "rootfs" || got.Slots["A"]["boot"].Source != "source" {
		t.Errorf("one byte more: %d bytes, the events %+v, the slot %+v", size, got.History, got.Slots["A"])
	}
	events, displayed, reports := 0, 0, 0 // how much more was stored before each of them was lost
	for more := n; ; more += 8 {
		err := s.Update(func(s *state.State) { s.Request = &state.Request{Source: strings.Repeat("x", more)} })
		if err != nil {
			break
		}
		got := open(t, m).State()
		image := got.Slots["A"]["rootfs"]
		switch {
		case len(got.History) > 0:
			events = more
		case image.Source != "":
			displayed = more
		case len(got.Fleet.Reports) > 0:
			if reports = more; image.Signer != "" || image.Seconds != nil || got.Fleet.Reports[len(got.Fleet.Reports)-1].Release != "rootfs" {
				t.Errorf("without what is displayed the image is %+v, and the reports are %+v", image, got.Fleet.Reports)
			}
		}
		if failures := got.Fleet.Failures; len(failures) == 0 || failures[len(failures)-1].Release != "rootfs" || len(failures) < 2 && len(got.Fleet.Reports) > 0 ||
			len(got.Fleet.Reports) < 2 && image.Source != "" || len(got.History) > 0 && image.Source == "" {
			t.Fatalf("of %d bytes more are left %+v", more, got)
		}
	}
	if events == 0 || displayed <= events || reports <= displayed {
		t.Errorf("events are kept to %d bytes more, what is displayed to %d, reports to %d", events, displayed, reports)
	}
}
