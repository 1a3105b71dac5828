package boottest

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"updater/boot"
)

// Rig connects a backend to the suite. Its slots are A and B.
type Rig struct {
	// Fresh returns a disk on which both slots are good and A boots next.
	Fresh func(t *testing.T) Disk
	// Open returns the backend on m. booted is the running slot.
	Open func(m *Medium, booted string) (boot.Backend, error)
	// Boot models the boot loader: it chooses a slot, spends its try on the disk, and returns its name, "" for none. It
	// is written from the boot loader's script or source, independently of the backend.
	Boot func(d *Disk) string
	// Others returns the content that does not belong to the backend, in its order. It must survive every change. It may
	// be nil.
	Others func(d Disk) []string
	// AlwaysBoots is set if the boot loader always finds a slot; tests without a bootable slot are skipped.
	AlwaysBoots bool
	// Caps are those of the boot loader's format.
	Caps boot.Caps
	// Recovery reports whether the disk requests the recovery; nil if the boot loader cannot be requested to start it.
	Recovery func(d Disk) bool
	// Volatile returns a disk with volatile caches that holds content. It is required for backends with areas.
	Volatile func(content []byte) VolatileDisk
}

// Contract runs the suite that every backend must pass.
func Contract(t *testing.T, r Rig) {
	t.Run("Life", r.life)
	t.Run("Caps", r.caps)
	t.Run("Refusals", r.refusals)
	t.Run("InvalidateIsDurable", r.invalidateIsDurable)
	t.Run("ActivateIsOldOrNew", r.activateIsOldOrNew)
	t.Run("ActivateRefillsTheFallback", r.activateRefills)
	t.Run("RestoredIsTheFallback", r.restored)
	t.Run("LastActivateCounts", r.lastActivate)
	t.Run("SpendTryIsABoot", r.spendTry)
	t.Run("RecoveryRequest", r.recoveryRequest)
	t.Run("MarkGoodWritesNothingWhenNothingChanges", r.noNeedlessWrite)
	t.Run("BootedIsNotTheStoredChoice", r.bootedIsNotStored)
	t.Run("DisagreementIsReported", r.disagreement)
	t.Run("OthersSurvive", r.othersSurvive)
	t.Run("NothingBootable", r.nothingBootable)
	t.Run("PowerCuts", r.powerCuts)
	t.Run("VolatileDisk", r.volatileDisk)
	t.Run("Failures", r.failures)
	t.Run("Lies", r.lies)
}

func (r Rig) open(t *testing.T, m *Medium, booted string) boot.Backend {
	t.Helper()
	b, err := r.Open(m, booted)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r Rig) next(m *Medium) string { return r.boots(m.Disk(), 1)[0] }

// boots returns the slots of the next n boots if no slot is marked good.
func (r Rig) boots(d Disk, n int) []string {
	d = d.Clone()
	var list []string
	for range n {
		list = append(list, r.Boot(&d))
	}
	return list
}

// life updates from A to B, which works, and then from B to A, which does not. After every step State must predict the next
// three boots.
func (r Rig) life(t *testing.T) {
	m := New(r.Fresh(t))
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func(b boot.Backend) map[string]boot.SlotState {
		t.Helper()
		st, err := b.State(t.Context())
		do(err)
		if want := r.boots(m.Disk(), 3); st.Next != want[0] || !slices.Equal(st.Boots, want) {
			t.Errorf("State predicts that %q boots next and then %q; the boot loader chooses %q", st.Next, st.Boots, want)
		}
		slots, first := map[string]boot.SlotState{}, boot.SlotState{}
		for _, s := range st.Slots {
			if slots[s.Name] = s; s.Bootable && s.Priority > first.Priority {
				first = s
			}
		}
		if first.Name != st.Next {
			t.Errorf("slot %q boots next, but %q has the highest priority: %+v", st.Next, first.Name, st.Slots)
		}
		return slots
	}
	boot := func(want string) boot.Backend {
		t.Helper()
		if got := r.Boot(&m.disk); got != want {
			t.Fatalf("the boot loader chose %q; want %s", got, want)
		}
		b := r.open(t, m, want)
		state(b)
		return b
	}
	b := boot("A")
	do(b.MarkGood(t.Context(), "A"))
	if s := state(b)["A"]; !s.Good || !s.Bootable {
		t.Errorf("a slot marked good is %+v", s)
	}
	do(b.Invalidate(t.Context(), "B"))
	if s := state(b)["B"]; s.Bootable || s.Good || s.TriesLeft != 0 || s.Priority != 0 {
		t.Errorf("an invalidated slot is %+v", s)
	}
	if list := r.boots(m.Disk(), 12); slices.Contains(list, "B") {
		t.Errorf("an invalidated slot boots: %q", list)
	}
	tries := b.Caps().MaxTries
	do(b.Activate(t.Context(), "B", tries))
	if s := state(b)["B"]; !s.Bootable || s.TriesLeft != tries {
		t.Errorf("an activated slot is %+v; want %d tries", s, tries)
	}
	do(b.MarkGood(t.Context(), "A"))
	if got := r.next(m); got != "B" {
		t.Errorf("mark good of the running slot undid the activation: the boot loader chooses %q", got)
	}
	b = boot("B")
	do(b.MarkGood(t.Context(), "B"))
	if s := state(b)["B"]; !s.Good {
		t.Errorf("a slot marked good is %+v", s)
	}
	do(b.Invalidate(t.Context(), "A"))
	do(b.Activate(t.Context(), "A", 1))
	state(b)
	boot("A") // hangs
	b = boot("B")
	do(b.MarkGood(t.Context(), "B"))
	do(b.Repair(t.Context()))
	state(b)
	do(b.MarkBad(t.Context(), "A"))
	if got := r.next(m); got != "B" {
		t.Errorf("after mark bad of A the boot loader chooses %q", got)
	}
	state(b)
}

// caps checks the capabilities, and that a running slot that is not configured is refused.
func (r Rig) caps(t *testing.T) {
	m := New(r.Fresh(t))
	if got := r.open(t, m, "A").Caps(); got != r.Caps {
		t.Errorf("Caps = %+v; want %+v", got, r.Caps)
	}
	if _, err := r.Open(m, "C"); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
		t.Errorf("New with slot C running = %v, %d sectors written; want ErrState and none", err, m.Writes())
	}
}

func (r Rig) refusals(t *testing.T) {
	invalidateB := func(m *Medium) {
		if err := r.open(t, m, "A").Invalidate(t.Context(), "B"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		booted string
		before func(m *Medium)
		do     func(b boot.Backend) error
	}{
		{"invalidate the running slot", "A", nil, func(b boot.Backend) error { return b.Invalidate(t.Context(), "A") }},
		{"mark another slot good", "A", nil, func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }},
		{"mark good outside every slot", "", nil, func(b boot.Backend) error { return b.MarkGood(t.Context(), "A") }},
		{"no tries", "A", nil, func(b boot.Backend) error { return b.Activate(t.Context(), "B", 0) }},
		{"too many tries", "A", nil, func(b boot.Backend) error { return b.Activate(t.Context(), "B", b.Caps().MaxTries+1) }},
		{"activate an unknown slot", "A", nil, func(b boot.Backend) error { return b.Activate(t.Context(), "C", 1) }},
		{"invalidate an unknown slot", "A", nil, func(b boot.Backend) error { return b.Invalidate(t.Context(), "C") }},
		{"mark an unknown slot bad", "A", nil, func(b boot.Backend) error { return b.MarkBad(t.Context(), "C") }},
		{"invalidate the last bootable slot", "", invalidateB, func(b boot.Backend) error { return b.Invalidate(t.Context(), "A") }},
		{"mark the last bootable slot bad", "A", invalidateB, func(b boot.Backend) error { return b.MarkBad(t.Context(), "A") }},
		{"invalidate the only slot", "", invalidateB, func(b boot.Backend) error { return boot.InvalidateLast(t.Context(), b, "A") }},
	} {
		m := New(r.Fresh(t))
		if c.before != nil {
			c.before(m)
		}
		writes := m.Writes()
		if err := c.do(r.open(t, m, c.booted)); !errors.Is(err, boot.ErrRefused) || m.Writes() > writes {
			t.Errorf("%s = %v, %d sectors written; want ErrRefused and none", c.name, err, m.Writes()-writes)
		}
		if got := r.next(m); got != "A" {
			t.Errorf("%s: the boot loader chooses %q", c.name, got)
		}
	}
}

// noNeedlessWrite checks that mark good of a good slot writes nothing, nor does repair of a sound store.
func (r Rig) noNeedlessWrite(t *testing.T) {
	m := New(r.Fresh(t))
	if err := r.open(t, m, "A").MarkGood(t.Context(), "A"); err != nil {
		t.Errorf("mark good of a good slot = %v", err)
	}
	st, err := r.open(t, m, "A").State(t.Context())
	if err != nil || m.Writes() > 0 {
		t.Errorf("mark good of a good slot wrote %d sectors; State = %v", m.Writes(), err)
	}
	sound := !slices.ContainsFunc(st.Findings, repairable)
	if err := r.open(t, m, "A").Repair(t.Context()); err != nil || sound && m.Writes() > 0 {
		t.Errorf("Repair of a sound store = %v and wrote %d sectors", err, m.Writes())
	}
	if st, err := r.open(t, m, "A").State(t.Context()); err != nil || slices.ContainsFunc(st.Findings, repairable) || st.Next != "A" {
		t.Errorf("after Repair State = %+v, %v", st, err)
	}
	if err := r.open(t, m, "A").Activate(t.Context(), "B", 1); err != nil || r.Boot(&m.disk) != "B" {
		t.Fatalf("Activate = %v, and slot B does not boot", err)
	}
	b := r.open(t, m, "B")
	if err := b.MarkGood(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	writes, disk := m.Writes(), m.Disk()
	if err := b.MarkGood(t.Context(), "B"); err != nil || m.Writes() > writes || !reflect.DeepEqual(m.Disk(), disk) {
		t.Errorf("the second mark good = %v and wrote %d sectors", err, m.Writes()-writes)
	}
}

// invalidateIsDurable checks that no power cut makes a slot bootable again once Invalidate or MarkBad has returned.
func (r Rig) invalidateIsDurable(t *testing.T) {
	for name, do := range map[string]func(b boot.Backend) error{
		"Invalidate": func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") },
		"MarkBad":    func(b boot.Backend) error { return b.MarkBad(t.Context(), "B") },
		"Invalidate of a slot on trial": func(b boot.Backend) error {
			if err := b.Activate(t.Context(), "B", 1); err != nil {
				return err
			}
			return b.Invalidate(t.Context(), "B")
		},
	} {
		m := New(r.Fresh(t))
		if err := do(r.open(t, m, "A")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m.cutNow(func(cut Disk) {
			if list := r.boots(cut, 12); slices.Contains(list, "B") || !slices.Contains(list, "A") {
				t.Errorf("%s has returned; after a power cut boots %q", name, list)
			}
		})
	}
}

// activateIsOldOrNew checks that after a power cut during Activate all following boots are those of the old state or those
// of the new one.
func (r Rig) activateIsOldOrNew(t *testing.T) {
	d := r.after(t, r.steps()[0], r.Fresh(t)).Disk()
	d = r.after(t, r.steps()[1], d).Disk()
	m := New(d)
	b := r.open(t, m, "A")
	if err := b.Activate(t.Context(), "B", b.Caps().MaxTries); err != nil {
		t.Fatal(err)
	}
	old, done := r.boots(d, 12), r.boots(m.Disk(), 12)
	if slices.Equal(old, done) {
		t.Fatalf("Activate changes nothing: %q", old)
	}
	m.CrashDisks(func(cut Disk) {
		if got := r.boots(cut, 12); !slices.Equal(got, old) && !slices.Equal(got, done) {
			t.Errorf("after a power cut boots %q; want %q or %q", got, old, done)
		}
	})
	m.cutNow(func(cut Disk) {
		if got := r.boots(cut, 12); !slices.Equal(got, done) {
			t.Errorf("Activate has returned; after a power cut boots %q, want %q", got, done)
		}
	})
}

// repairable reports whether Repair is the remedy of a finding.
func repairable(f boot.Finding) bool { return strings.HasPrefix(f.Remedy, boot.RemedyRepair) }

// lastActivate checks that Activate of the running slot cancels an earlier one of the other slot.
func (r Rig) lastActivate(t *testing.T) {
	m := New(r.Fresh(t))
	b := r.open(t, m, "A")
	for _, slot := range []string{"B", "A"} {
		if err := b.Activate(t.Context(), slot, 1); err != nil || r.next(m) != slot {
			t.Errorf("Activate of slot %s = %v, and slot %q boots next", slot, err, r.next(m))
		}
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" {
		t.Errorf("State = %+v, %v; want A next", st, err)
	}
}

// recoveryRequest checks that a request of the recovery is on the medium once it returned nil, is written once, and changes no slot.
func (r Rig) recoveryRequest(t *testing.T) {
	request := func(m *Medium) error {
		b, err := r.Open(m, "A")
		if err != nil {
			return err
		}
		return boot.RequestRecovery(t.Context(), b)
	}
	m := New(r.Fresh(t))
	if r.Recovery == nil {
		if err := request(m); !errors.Is(err, boot.ErrRefused) || m.Writes() > 0 {
			t.Errorf("RequestRecovery = %v, %d sectors written; want ErrRefused and none", err, m.Writes())
		}
		return
	}
	want := r.boots(m.Disk(), 12)
	if err := request(m); err != nil || r.Recovery(r.Fresh(t)) {
		t.Fatalf("RequestRecovery = %v; requested before: %v", err, r.Recovery(r.Fresh(t)))
	}
	m.cutNow(func(cut Disk) {
		if got := r.boots(cut, 12); !r.Recovery(cut) || !slices.Equal(got, want) {
			t.Errorf("RequestRecovery has returned; after a power cut it is requested: %v, boots %q; want %q", r.Recovery(cut), got, want)
		}
	})
	m.CrashDisks(func(cut Disk) {
		if got := r.boots(cut, 12); !slices.Equal(got, want) {
			t.Errorf("after a power cut boots %q; want %q", got, want)
		}
	})
	writes := m.Writes()
	if err := request(m); err != nil || m.Writes() > writes {
		t.Errorf("the second RequestRecovery = %v and wrote %d sectors", err, m.Writes()-writes)
	}
	for n := 1; ; n++ {
		m := New(r.Fresh(t))
		m.FailAt = n
		switch err := request(m); {
		case err == nil && !r.Recovery(m.Disk()), err != nil && !errors.Is(err, boot.ErrState):
			t.Fatalf("operation %d failed: RequestRecovery = %v, requested: %v", n, err, r.Recovery(m.Disk()))
		case m.Operations() < n:
			lying := New(r.Fresh(t))
			if lying.Lie = true; !errors.Is(request(lying), boot.ErrState) {
				t.Error("RequestRecovery on a medium that holds nothing is no error")
			}
			return
		}
	}
}

// restored checks that a restored slot is good and the fallback, that no power cut on the way changes the slot that boots next, and which
// requests are refused.
func (r Rig) restored(t *testing.T) {
	restore := func(b boot.Backend, slot string) error { return boot.RestoreFallback(t.Context(), b, slot) }
	m := New(r.Fresh(t))
	b := r.open(t, m, "A")
	if _, ok := b.(boot.Restorer); !ok {
		if err := restore(b, "B"); !errors.Is(err, boot.ErrRefused) || m.Writes() > 0 {
			t.Errorf("RestoreFallback of a backend without it = %v, and it wrote %d sectors", err, m.Writes())
		}
		t.Skip("this backend cannot restore a fallback")
	}
	tried := r.Fresh(t).Clone()
	if err := errors.Join(b.Invalidate(t.Context(), "B"), r.tryB(t, &tried)); err != nil {
		t.Fatal(err)
	}
	check := func(d Disk) {
		t.Helper()
		st, err := r.open(t, New(d), "A").State(t.Context())
		if err != nil || st.Next != "A" || r.boots(d, 1)[0] != "A" {
			t.Fatalf("after RestoreFallback State = %+v, %v; boots %q", st, err, r.boots(d, 1))
		}
		for _, s := range st.Slots {
			if !s.Bootable || !s.Good {
				t.Errorf("after RestoreFallback slot %s is %+v", s.Name, s)
			}
		}
	}
	for _, bad := range []Disk{tried, m.Disk()} {
		m = New(bad)
		if err := restore(r.open(t, m, "A"), "B"); err != nil {
			t.Fatal(err)
		}
		check(m.Disk())
		m.cutNow(check)
		m.CrashDisks(func(cut Disk) {
			if list := r.boots(cut, 12); list[0] != "A" {
				t.Errorf("after a power cut boots %q", list)
			}
		})
	}
	writes := m.Writes()
	if err := restore(r.open(t, m, "A"), "B"); err != nil || m.Writes() > writes {
		t.Errorf("the second RestoreFallback = %v and wrote %d sectors", err, m.Writes()-writes)
	}
	b = r.open(t, m, "A")
	if err := cmp.Or(b.MarkBad(t.Context(), "A"), restore(b, "A")); !errors.Is(err, boot.ErrRefused) || r.next(m) != "B" {
		t.Errorf("RestoreFallback of the running slot = %v; slot %q boots next, want B, which was restored", err, r.next(m))
	}
	m = New(r.Fresh(t))
	if err := restore(r.open(t, m, "B"), "A"); !errors.Is(err, boot.ErrRefused) || m.Writes() > 0 {
		t.Errorf("RestoreFallback of the slot that boots next = %v, and it wrote %d sectors", err, m.Writes())
	}
}

// tryB activates slot B on a disk, boots until its only try is spent, and marks slot A good, which runs then.
func (r Rig) tryB(t *testing.T, d *Disk) error {
	m := New(*d)
	err := r.open(t, m, "A").Activate(t.Context(), "B", 1)
	if list := []string{r.Boot(&m.disk), r.Boot(&m.disk)}; !slices.Equal(list, []string{"B", "A"}) {
		return errors.Join(err, fmt.Errorf("after Activate boots %q; want B and A", list))
	}
	err = errors.Join(err, r.open(t, m, "A").MarkGood(t.Context(), "A"))
	*d = m.Disk()
	return err
}

// spendTry checks that a spent try leaves the state that a boot by the loader would leave, and that only the slot that boots next has one to spend.
func (r Rig) spendTry(t *testing.T) {
	m := New(r.Fresh(t))
	b := r.open(t, m, "A")
	spender, ok := b.(boot.Spender)
	if !ok {
		t.Skip("this backend cannot spend a try")
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if err := spender.SpendTry(t.Context(), "A"); !errors.Is(err, boot.ErrRefused) {
		t.Errorf("SpendTry of the slot that does not boot next = %v; want ErrRefused", err)
	}
	for range 3 {
		want := r.boots(m.Disk(), 5)
		if want[0] == "" {
			return
		}
		if err := spender.SpendTry(t.Context(), want[0]); err != nil {
			t.Fatalf("SpendTry of slot %s = %v", want[0], err)
		}
		if got := r.boots(m.Disk(), 4); !slices.Equal(got, want[1:]) {
			t.Errorf("after SpendTry of slot %s the boot loader chooses %q; want %q", want[0], got, want[1:])
		}
	}
}

// activateRefills checks that the running slot boots after a failed try of the other one, and when the other one is given up, even if it
// has spent all its tries since it was marked good.
func (r Rig) activateRefills(t *testing.T) {
	d := r.Fresh(t).Clone()
	for n := 0; n < 12 && r.boots(d, 1)[0] == "A"; n++ {
		r.Boot(&d)
	}
	m := New(d)
	if err := r.open(t, m, "A").Activate(t.Context(), "B", 1); err != nil {
		t.Fatal(err)
	}
	if list := r.boots(m.Disk(), 2); !slices.Equal(list, []string{"B", "A"}) {
		t.Errorf("after Activate boots %q; want B and A", list)
	}
	for name, do := range map[string]func(b boot.Backend) error{
		"Invalidate": func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") },
		"MarkBad":    func(b boot.Backend) error { return b.MarkBad(t.Context(), "B") },
	} {
		m := New(d)
		if err := do(r.open(t, m, "A")); err != nil {
			t.Fatal(err)
		}
		if got := r.next(m); got != "A" {
			t.Errorf("after %s of the other slot boots %q; want A", name, got)
		}
	}
}

// bootedIsNotStored checks that the running slot is the given one, whatever the stored choice is.
func (r Rig) bootedIsNotStored(t *testing.T) {
	for _, want := range []string{"A", "B", ""} {
		m := New(r.Fresh(t))
		b := r.open(t, m, want)
		got, err := b.Booted(t.Context())
		if st, serr := b.State(t.Context()); err != nil || serr != nil || got != want || st.Booted != want || st.Next != "A" {
			t.Errorf("with slot %q running Booted = %q, %v; State = %+v, %v", want, got, err, st, serr)
		}
	}
}

// disagreement checks that a finding reports a running slot that the stored state does not allow to boot.
func (r Rig) disagreement(t *testing.T) {
	m := New(r.Fresh(t))
	if err := r.open(t, m, "A").Invalidate(t.Context(), "B"); err != nil {
		t.Fatal(err)
	}
	st, err := r.open(t, m, "B").State(t.Context())
	if err != nil || !slices.ContainsFunc(st.Findings, func(f boot.Finding) bool { return f.Severity != boot.Info && f.Remedy != "" }) {
		t.Errorf("with a bad slot running State = %+v, %v; want a finding with its remedy", st, err)
	}
}

// othersSurvive checks that foreign content survives every change, in its order.
func (r Rig) othersSurvive(t *testing.T) {
	if r.Others == nil {
		t.Skip("the store has no foreign content")
	}
	d := r.Fresh(t)
	want := r.Others(d)
	if len(want) == 0 {
		t.Fatal("the fresh disk has no foreign content")
	}
	for _, s := range r.steps() {
		m := r.after(t, s, d)
		d = m.Disk()
		if got := r.Others(d); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: foreign content is %q; want %q", s.name, got, want)
		}
	}
}

// after runs one step on a copy of a disk.
func (r Rig) after(t *testing.T, s step, d Disk) *Medium {
	t.Helper()
	d = d.Clone()
	if s.before != nil {
		s.before(&d)
	}
	m := New(d)
	if err := s.do(t, r.open(t, m, s.booted)); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	return m
}

// nothingBootable checks that a recovery can install into a slot when no slot boots.
func (r Rig) nothingBootable(t *testing.T) {
	if r.AlwaysBoots {
		t.Skip("this boot loader always finds a slot")
	}
	m := New(r.Fresh(t))
	b := r.open(t, m, "B")
	for _, err := range []error{b.Invalidate(t.Context(), "A"), b.Activate(t.Context(), "B", 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Boot(&m.disk); got != "B" {
		t.Fatalf("the boot loader chose %q; want B", got)
	}
	b = r.open(t, m, "") // the recovery, after B did not come up
	if st, err := b.State(t.Context()); err != nil || st.Next != "" {
		t.Fatalf("State = %+v, %v; want no slot", st, err)
	}
	if err := boot.RestoreFallback(t.Context(), b, "A"); !errors.Is(err, boot.ErrRefused) {
		t.Errorf("RestoreFallback while no slot boots = %v; want ErrRefused", err)
	}
	if err := b.Invalidate(t.Context(), "A"); err != nil {
		t.Fatalf("Invalidate with nothing to lose = %v", err)
	}
	if err := b.Activate(t.Context(), "A", 1); err != nil || r.next(m) != "A" {
		t.Fatalf("Activate = %v; the boot loader chooses %q", err, r.next(m))
	}
}

// step is one mutation.
type step struct {
	name   string
	booted string
	before func(d *Disk) // runs before the mutation, such as a boot
	do     func(t *testing.T, b boot.Backend) error
	may    []string // slots that may boot after a power cut during the mutation
}

// steps are the mutations of an update from A to B. Each begins in the state that the previous one left.
func (r Rig) steps() []step {
	return []step{
		{"mark good A", "A", func(d *Disk) { r.Boot(d) },
			func(t *testing.T, b boot.Backend) error { return b.MarkGood(t.Context(), "A") }, []string{"A", "B"}},
		{"invalidate B", "A", nil, func(t *testing.T, b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, []string{"A"}},
		{"activate B", "A", nil, func(t *testing.T, b boot.Backend) error { return b.Activate(t.Context(), "B", 1) }, []string{"A", "B"}},
		{"mark good B", "B", func(d *Disk) { r.Boot(d) },
			func(t *testing.T, b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, []string{"A", "B"}},
		{"activate A", "B", nil, func(t *testing.T, b boot.Backend) error { return b.Activate(t.Context(), "A", 1) }, []string{"A", "B"}},
		{"mark bad A", "B", nil, func(t *testing.T, b boot.Backend) error { return b.MarkBad(t.Context(), "A") }, []string{"A", "B"}},
		{"restore A", "B", nil, restoreA, []string{"B"}},
	}
}

// restoreA restores slot A where the backend can.
func restoreA(t *testing.T, b boot.Backend) error {
	if _, ok := b.(boot.Restorer); !ok {
		return nil
	}
	return boot.RestoreFallback(t.Context(), b, "A")
}

// powerCuts checks that an allowed slot boots in every state that a power cut can leave.
func (r Rig) powerCuts(t *testing.T) {
	d, states := r.Fresh(t), 0
	for _, s := range r.steps() {
		m := r.after(t, s, d)
		old, done := r.boots(m.start, 1)[0], r.next(m)
		m.CrashDisks(func(cut Disk) {
			states++
			list := r.boots(cut, 12)
			if got := list[0]; !slices.Contains(s.may, got) || got != old && got != done {
				t.Fatalf("%s: after a power cut the boot loader chooses %q; want %q or %q of %v", s.name, got, old, done, s.may)
			}
			if s.name == "activate B" && !slices.Contains(list, "A") {
				t.Fatalf("%s: slot A is not the fallback of slot B: %q", s.name, list)
			}
		})
		d = m.Disk()
	}
	t.Logf("%d states after power cuts", states)
}

// failures lets each operation fail in turn: an allowed slot must boot, and the mutation must return ErrState, unless
// redundancy makes up for a failed read and the next boots are those of a mutation without a failure.
func (r Rig) failures(t *testing.T) {
	d := r.Fresh(t)
	read := step{"State", "A", nil, func(t *testing.T, b boot.Backend) error { _, err := b.State(t.Context()); return err }, []string{"A"}}
	repair := step{"repair", "A", nil, func(t *testing.T, b boot.Backend) error { return b.Repair(t.Context()) }, []string{"A"}}
	for _, s := range append([]step{read, repair}, r.steps()...) {
		if s.before != nil {
			s.before(&d)
		}
		whole := New(d)
		if err := s.do(t, r.open(t, whole, s.booted)); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		done := r.boots(whole.Disk(), 12)
		for n := 1; ; n++ {
			m := New(d)
			m.FailAt = n
			b, err := r.Open(m, s.booted)
			if err == nil {
				err = s.do(t, b)
			}
			if m.Opened != 0 {
				t.Fatalf("%s: operation %d failed and left %d files open", s.name, n, m.Opened)
			}
			if m.Operations() < n {
				if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				d = m.Disk()
				break
			}
			m.CrashDisks(func(cut Disk) {
				if got := r.boots(cut, 1)[0]; !slices.Contains(s.may, got) {
					t.Fatalf("%s: operation %d failed and the boot loader chooses %q; want one of %v", s.name, n, got, s.may)
				}
			})
			if got := r.boots(m.Disk(), 12); err == nil && (!m.readFailed || !slices.Equal(got, done)) {
				t.Fatalf("%s: operation %d failed without an error; then boots %q, want %q", s.name, n, got, done)
			}
			if err != nil && (!errors.Is(err, boot.ErrState) || !errors.Is(err, ErrInjected)) {
				t.Fatalf("%s: operation %d failed: %v; want ErrState and the cause", s.name, n, err)
			}
		}
	}
}

// lies checks that the read-back detects a medium that confirms writes and drops them.
func (r Rig) lies(t *testing.T) {
	d := r.Fresh(t)
	for _, s := range r.steps() {
		if s.before != nil {
			s.before(&d)
		}
		m := New(d)
		m.Lie = true
		if err := s.do(t, r.open(t, m, s.booted)); m.Writes() > 0 && !errors.Is(err, boot.ErrState) || m.Writes() == 0 && err != nil {
			t.Errorf("%s on a medium that holds nothing = %v after %d writes; want ErrState", s.name, err, m.Writes())
		}
		d = r.after(t, step{s.name, s.booted, nil, s.do, s.may}, d).Disk()
	}
}
