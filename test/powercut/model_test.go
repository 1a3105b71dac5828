package powercut

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updater/boot"
	"updater/update"
)

// The model of the switch protocol. Its transitions are the code: the real backends, the real install and the models of the
// boot loaders run on a small disk in memory, so the model cannot differ from them. From the fresh device it visits every
// state that a boot, an install, a mark, an activation, a repair, a reset, a power cut, a failed operation and a damaged sector
// can lead to, breadth first, with a limited number of faults on a path.

// content is the content of a slot.
type content byte

const (
	broken content = iota // not a complete image
	fresh                 // complete; whether it works is not known
	proven                // complete, and it was marked good while it ran
)

// damage is a class of faults that make sectors unreadable, which lasts until they are rewritten.
type damage struct {
	name  string
	unit  int64 // bytes that one fault damages, aligned on the disk; 0 means none
	decay bool  // at any time, not only in bytes being written when the power fails
}

// damages are the classes of the table in docs/durability.md.
var damages = []damage{
	{name: "none"},
	{name: "torn sector", unit: 512},
	{name: "decayed sector", unit: 512, decay: true},
	{name: "4 KiB", unit: 4096},
	{name: "erase block", unit: 128 << 10},
}

// survives is the table in docs/durability.md: the damage that each layout of the boot state survives, by the names of damages. Every
// layout survives "none". The layouts that are not listed keep a single copy of their state.
var survives = map[string][]string{
	"uboot":            {"torn sector", "decayed sector", "4 KiB"},
	"uboot, bootcount": {"torn sector", "decayed sector", "4 KiB"},
	"barebox":          {"torn sector", "decayed sector"},
	"gpt":              {"torn sector", "decayed sector", "4 KiB", "erase block"},
}

// bothCopies lists the damage that two faults can do to both copies of a layout. The second copy of a GPT is lost if power fails while the boot
// loader writes it, before the first one was repaired.
var bothCopies = map[string][]string{
	"uboot":            {"decayed sector"},
	"uboot, bootcount": {"decayed sector"},
	"gpt":              {"none", "torn sector", "decayed sector", "4 KiB", "erase block"},
}

// protocol explores the states of one boot loader.
type protocol struct {
	t      *testing.T
	l      *loader
	damage damage
	long   bool // every sector decays
	image  *image
	d      *device // for the policy
	states []*modelState
	known  map[[32]byte]bool
	moves  int // transitions
}

// modelState is one state of the device.
type modelState struct {
	areas   [][]byte // boot state; unreadable sectors are garbage to the boot loader
	bad     []int    // unreadable sectors, numbered through the areas, ascending
	slots   [2]content
	running int  // slot; -1 is off
	marked  bool // the running slot was marked good since it was booted
	promise int  // slot that boots next, as an operation that succeeded has promised; -1 means none, -2 is the old or the new one
	faults  int  // number that may still happen
	from    *modelState
	by      string // the transition that led here
}

func (s *modelState) key() [32]byte {
	meta := fmt.Sprint(s.bad, s.slots, s.running, s.marked, s.promise, s.faults)
	return sha256.Sum256(append(bytes.Join(s.areas, nil), meta...))
}

func (s *modelState) clone(by string) *modelState {
	c := *s
	c.areas = nil
	for _, a := range s.areas {
		c.areas = append(c.areas, bytes.Clone(a))
	}
	c.bad, c.from, c.by = slices.Clone(s.bad), s, by
	return &c
}

// path lists the transitions that led to s.
func (s *modelState) path() string {
	var list []string
	for ; s.from != nil; s = s.from {
		list = append(list, s.by)
	}
	slices.Reverse(list)
	return strings.Join(list, "\n  ")
}

func (p *protocol) fail(s *modelState, format string, a ...any) error {
	return fmt.Errorf("%s, damage %s: %s\nafter\n  %s", p.l.name, p.damage.name, fmt.Sprintf(format, a...), s.path())
}

// explore visits every state with a limited number of faults on a path.
func (p *protocol) explore(faults int) error {
	p.add(&modelState{areas: p.l.fresh(), slots: [2]content{proven, proven}, running: -1, promise: 0, faults: faults})
	for i := 0; i < len(p.states); i++ {
		s := p.states[i]
		if len(p.states) > 500_000 {
			return p.fail(s, "%d states, and no end", len(p.states))
		}
		visit := p.off
		if s.running >= 0 {
			visit = p.on
		}
		if err := visit(s); err != nil {
			return err
		}
	}
	return nil
}

func (p *protocol) add(s *modelState) {
	p.moves++
	if p.l.canon != nil {
		p.l.canon(s.areas)
	}
	if k := s.key(); !p.known[k] {
		p.known[k] = true
		p.states = append(p.states, s)
	}
}

// off checks the choices of the boot loader, and starts the device: it comes up, hangs, or loses power while the loader writes.
func (p *protocol) off(s *modelState) error {
	chain := p.l.chainOf(s.areas)
	back := false
	for _, name := range chain {
		if i := slices.Index(slotNames, name); i >= 0 {
			if s.slots[i] == broken {
				return p.fail(s, "the boot loader tries %q, and slot %s is not complete", chain, name)
			}
			back = back || s.slots[i] == proven
		}
	}
	if !back {
		return p.fail(s, "the boot loader tries %q and never a slot that is known to work; slots %v", chain, s.slots)
	}
	if s.promise >= 0 && chain[0] != slotNames[s.promise] {
		return p.fail(s, "the boot loader chooses %q; promised was %s", chain[0], slotNames[s.promise])
	}
	areas := s.clone("").areas
	chosen := slices.Index(slotNames, p.l.boot(areas))
	record := newRecord(p, s)
	for i := range areas {
		record.replace(i, areas[i])
	}
	p.cuts(s, record, "power cut while the boot loader writes", func(c *modelState, _ int) { c.promise = -1 })
	end := record.end(s, fmt.Sprintf("boot %q", chain[0]))
	end.promise = -1
	if chosen < 0 || s.slots[chosen] == fresh {
		hang := end.clone(fmt.Sprintf("boot %q, which hangs", chain[0]))
		hang.from = s
		p.add(hang)
	}
	if chosen >= 0 {
		end.running, end.marked = chosen, false
		p.add(end)
	}
	p.decay(s)
	return nil
}

// operation is a change of the boot state by a running system.
type operation struct {
	name string
	do   func(b boot.Backend, r *record) error
	done func(s *modelState) // records the effect of its success
	must bool                // it may not fail without a fault
}

// on checks State, and runs every operation, with every fault.
func (p *protocol) on(s *modelState) error {
	self, other := slotNames[s.running], slotNames[1-s.running]
	b, err := p.l.open(newRecord(p, s).list(), self)
	if err != nil {
		return p.fail(s, "opening the boot state: %v", err)
	}
	st, err := b.State(p.t.Context())
	if chain := p.l.chainOf(s.areas); err != nil || st.Booted != self || !slices.Equal(st.Boots, chain[:3]) {
		return p.fail(s, "State = %+v, %v; the boot loader chooses %q", st, err, chain[:3])
	}
	for _, o := range p.operations(s, self, other, b.Caps()) {
		if err := p.run(s, o); err != nil {
			return err
		}
	}
	reset := s.clone("reset")
	reset.running = -1
	if s.marked || s.slots[s.running] == fresh { // else a power cut before mark good
		p.add(reset)
	} else if s.faults > 0 {
		reset.faults--
		p.add(reset)
	}
	p.decay(s)
	return nil
}

func (p *protocol) operations(s *modelState, self, other string, caps boot.Caps) []operation {
	ctx := p.t.Context()
	good := func(s *modelState) {
		s.slots[s.running], s.marked = proven, true
		if s.promise == -1 {
			s.promise = s.running
		}
	}
	list := []operation{{"mark good " + self, func(b boot.Backend, _ *record) error { return b.MarkGood(ctx, self) }, good, true}}
	if s.slots[s.running] == proven { // as Repair assumes
		list = append(list, operation{"repair", func(b boot.Backend, _ *record) error { return b.Repair(ctx) }, func(*modelState) {}, true})
	}
	if s.marked { // a person may mark the fallback bad
		list = append(list, operation{"mark bad " + other, func(b boot.Backend, _ *record) error { return b.MarkBad(ctx, other) }, func(s *modelState) {
			s.promise = -1
		}, false})
	}
	if s.slots[s.running] == fresh {
		list = append(list, operation{"mark bad " + self, func(b boot.Backend, _ *record) error { return b.MarkBad(ctx, self) }, func(s *modelState) {
			s.running, s.promise = -1, 1-s.running
		}, false})
	}
	if s.slots[1-s.running] != broken && s.marked {
		list = append(list, operation{"activate " + other, func(b boot.Backend, _ *record) error { return b.Activate(ctx, other, 1) }, func(s *modelState) {
			s.promise = 1 - s.running
		}, true})
	}
	if s.slots[1-s.running] == proven && s.marked { // its content was repaired
		list = append(list, operation{"restore " + other, func(b boot.Backend, _ *record) error { return boot.RestoreFallback(ctx, b, other) }, func(*modelState) {}, false})
	}
	install := func(b boot.Backend, r *record) error {
		r.target = 1 - s.running
		return p.install(b, r)
	}
	return append(list, operation{"install " + other, install, func(s *modelState) { s.promise, s.slots[1-s.running] = 1-s.running, fresh }, s.marked})
}

// run runs one operation as it is, cut at every step, and with every write and flush failing.
func (p *protocol) run(s *modelState, o operation) error {
	try := func(failAt int) (*record, error) {
		r := newRecord(p, s)
		r.failAt = failAt
		b, err := p.l.open(r.list(), slotNames[s.running])
		if err == nil {
			err = o.do(b, r)
		}
		return r, err
	}
	proof := func(c *modelState) { // the health checks passed before
		if strings.HasPrefix(o.name, "mark good") {
			c.slots[c.running] = proven
		}
	}
	r, err := try(0)
	if err != nil && o.must {
		return p.fail(s, "%s: %v", o.name, err)
	}
	end := r.end(s, o.name)
	if err == nil {
		o.done(end)
	} else if len(r.events) > 0 {
		return p.fail(s, "%s is refused after it wrote: %v", o.name, err)
	}
	p.add(end)
	if s.faults == 0 {
		return nil
	}
	p.cuts(s, r, "power cut in "+o.name, func(c *modelState, n int) {
		proof(c)
		c.promise = -1
		c.running = -1
		if r.target >= 0 {
			c.slots[r.target] = r.holds(s, n)
		}
	})
	for n := 1; n <= r.ops; n++ {
		r, err := try(n)
		if err == nil {
			return p.fail(s, "%s: operation %d failed, and it reports success", o.name, n)
		}
		bad := r.end(s, fmt.Sprintf("%s, whose operation %d fails", o.name, n))
		proof(bad)
		bad.promise = -2
		bad.faults--
		if r.target >= 0 {
			bad.slots[r.target] = r.holds(s, len(r.events))
		}
		p.add(bad)
	}
	return nil
}

// decay makes each sector unreadable, if the class of damage has that. Only one fault is in the boot state at a time.
func (p *protocol) decay(s *modelState) {
	if !p.damage.decay || s.faults == 0 || len(s.bad) > 0 {
		return
	}
	for _, i := range p.sample() {
		c := s.clone(fmt.Sprintf("sector %d decays", i))
		p.spoil(c, i)
		c.promise, c.marked = -2, false
		c.faults--
		p.add(c)
	}
}

// sample are the sectors that decay: in the short form the first of each area, and the last.
func (p *protocol) sample() []int {
	var list []int
	for i := range p.sectors() {
		if area, off := p.place(i); p.long || off < 3*boot.Sector || off >= p.l.areas[area].size-boot.Sector {
			list = append(list, i)
		}
	}
	return list
}

// sectors is the number of sectors of all areas.
func (p *protocol) sectors() int {
	n := 0
	for _, a := range p.l.areas {
		n += int((a.size + boot.Sector - 1) / boot.Sector)
	}
	return n
}

// place is the area of a numbered sector and its offset there.
func (p *protocol) place(n int) (area int, off int64) {
	for i, a := range p.l.areas {
		if has := int((a.size + boot.Sector - 1) / boot.Sector); n >= has {
			n -= has
			continue
		}
		return i, int64(n) * boot.Sector
	}
	panic("no such sector")
}

// number is the reverse of place.
func (p *protocol) number(area int, off int64) int {
	n := int(off / boot.Sector)
	for _, a := range p.l.areas[:area] {
		n += int((a.size + boot.Sector - 1) / boot.Sector)
	}
	return n
}

// spoil makes everything unreadable that lies in the unit of damage with a sector.
func (p *protocol) spoil(s *modelState, sector int) {
	area, off := p.place(sector)
	first := (p.l.areas[area].off + off) / p.damage.unit * p.damage.unit
	for n := range p.sectors() {
		i, at := p.place(n)
		if abs := p.l.areas[i].off + at; abs < first || abs >= first+p.damage.unit {
			continue
		}
		part := s.areas[i][at:min(at+boot.Sector, int64(len(s.areas[i])))]
		copy(part, bytes.Repeat([]byte{0xee}, len(part)))
		if !slices.Contains(s.bad, n) {
			s.bad = append(s.bad, n)
		}
	}
	slices.Sort(s.bad)
}

// cuts adds the states after a power cut at every step of a record: any selection of the unflushed writes, and then damage
// around the newest write. change completes a state that was cut after n events.
func (p *protocol) cuts(s *modelState, r *record, by string, change func(c *modelState, n int)) {
	if s.faults == 0 {
		return
	}
	durable := 0
	for n := 0; n <= len(r.events); n++ {
		if n > 0 && r.events[n-1].flush {
			durable = n
		}
		var open []int // writes of boot state that may be lost
		for i, e := range r.events[durable:n] {
			if e.data != nil {
				open = append(open, durable+i)
			}
		}
		newest := n > 0 && r.events[n-1].data != nil
		if n > 1 && r.events[n-1].slot && r.events[n-2].slot {
			continue // the slot is not complete, as at the step before
		}
		for _, keep := range selections(len(open)) {
			if newest && !keep[len(open)-1] && p.damage.unit == 0 {
				continue // was added at the step before
			}
			c := s.clone(fmt.Sprintf("%s after %d of %d steps, keeping %v", by, n, len(r.events), keep))
			c.faults--
			for i, e := range r.events[:n] {
				if j := slices.Index(open, i); j < 0 || keep[j] {
					p.apply(c, e)
				}
			}
			change(c, n)
			var damaged []int
			switch {
			case newest && p.damage.unit > 0:
				damaged = []int{p.number(r.events[n-1].area, r.events[n-1].off)}
			case n > 0 && r.events[n-1].slot && p.damage.decay && len(s.bad) == 0:
				damaged = p.sample()
			}
			for _, sector := range damaged {
				spoilt := c.clone(fmt.Sprintf("%s, damaging sector %d", c.by, sector))
				spoilt.from = s
				p.spoil(spoilt, sector)
				p.add(spoilt)
			}
			p.add(c)
		}
	}
}

// selections are all subsets of n writes; of more than 6, every prefix, all but one, and only one.
func selections(n int) [][]bool {
	var list [][]bool
	pick := func(keep func(i int) bool) {
		s := make([]bool, n)
		for i := range s {
			s[i] = keep(i)
		}
		list = append(list, s)
	}
	if n <= 6 {
		for mask := range 1 << n {
			pick(func(i int) bool { return mask>>i&1 == 1 })
		}
		return list
	}
	for k := range n + 1 {
		pick(func(i int) bool { return i < k })
		pick(func(i int) bool { return i != k })
		pick(func(i int) bool { return i == k })
	}
	return list
}

// apply applies a write of boot state.
func (p *protocol) apply(s *modelState, e step) {
	if e.data == nil {
		return
	}
	copy(s.areas[e.area][e.off:], e.data)
	n := p.number(e.area, e.off)
	s.bad = slices.DeleteFunc(s.bad, func(b int) bool { return b == n })
}

// step is a write of one sector of boot state, a flush, or a write or flush of the target slot.
type step struct {
	area         int
	off          int64
	data         []byte
	flush        bool
	slot, synced bool
}

// record is the disk of one operation.
type record struct {
	p      *protocol
	now    *modelState // as the operation sees it
	events []step
	ops    int
	failAt int
	target int // slot that is written; -1 means none
}

func newRecord(p *protocol, s *modelState) *record {
	return &record{p: p, now: s.clone(""), target: -1}
}

// end is the state after the operation.
func (r *record) end(s *modelState, by string) *modelState {
	c := r.now.clone(by)
	c.from = s
	return c
}

// holds is the content of the target slot when the power fails after n events.
func (r *record) holds(s *modelState, n int) content {
	c := s.slots[r.target]
	for _, e := range r.events[:n] {
		if e.slot {
			c = broken
		}
		if e.synced {
			c = fresh
		}
	}
	return c
}

func (r *record) add(e step) {
	r.p.apply(r.now, e)
	r.events = append(r.events, e)
}

// op counts an operation that may fail.
func (r *record) op() error {
	if r.ops++; r.ops == r.failAt {
		return unix.EIO
	}
	return nil
}

// replace writes the differing sectors of an area in ascending order, like a boot loader that writes one area, or one unit of
// it, after the other.
func (r *record) replace(area int, data []byte) {
	old := bytes.Clone(r.now.areas[area])
	for off := 0; off < len(data); off += boot.Sector {
		if r.p.l.unit > 0 && off > 0 && off%r.p.l.unit == 0 {
			r.add(step{flush: true})
		}
		if part := data[off:min(off+boot.Sector, len(data))]; !bytes.Equal(part, old[off:off+len(part)]) {
			r.add(step{area: area, off: int64(off), data: bytes.Clone(part)})
		}
	}
	r.add(step{flush: true})
}

func (r *record) list() []boot.Area {
	var list []boot.Area
	for i := range r.now.areas {
		list = append(list, &stateArea{r, i})
	}
	return list
}

// stateArea is one area of the boot state.
type stateArea struct {
	r *record
	i int
}

func (a *stateArea) String() string { return fmt.Sprintf("boot state %d", a.i+1) }
func (a *stateArea) Size() int64    { return int64(len(a.r.now.areas[a.i])) }

// readable reports whether no unreadable sector is in a range.
func (a *stateArea) readable(off, n int64) bool {
	for at := off / boot.Sector * boot.Sector; at < off+n; at += boot.Sector {
		if slices.Contains(a.r.now.bad, a.r.p.number(a.i, at)) {
			return false
		}
	}
	return true
}

func (a *stateArea) ReadAt(p []byte, off int64) (int, error) {
	if !a.readable(off, min(int64(len(p)), a.Size()-off)) {
		return 0, unix.EIO
	}
	n := copy(p, a.r.now.areas[a.i][off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (a *stateArea) ReadBackAt(p []byte, off int64) (int, error) { return a.ReadAt(p, off) }

// WriteAt writes whole sectors over unreadable ones, and fails on a part of one.
func (a *stateArea) WriteAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if off < 0 || end > a.Size() {
		return 0, unix.EINVAL
	}
	if err := a.r.op(); err != nil {
		return 0, err
	}
	for at := off; at < end; {
		first := at / boot.Sector * boot.Sector
		stop := min(first+boot.Sector, end)
		if (at > first || stop < min(first+boot.Sector, a.Size())) && !a.readable(at, 1) {
			return 0, unix.EIO
		}
		sector := bytes.Clone(a.r.now.areas[a.i][first:min(first+boot.Sector, a.Size())])
		copy(sector[at-first:], p[at-off:stop-off])
		a.r.add(step{area: a.i, off: first, data: sector})
		at = stop
	}
	return len(p), nil
}

func (a *stateArea) Sync() error {
	if err := a.r.op(); err != nil {
		return err
	}
	a.r.add(step{flush: true})
	return nil
}

// install runs the real install into the other slot.
func (p *protocol) install(b boot.Backend, r *record) error {
	img := p.image
	_, err := update.Install(p.t.Context(), update.Job{
		Boot: bootState{b}, Disk: slotDisk{r}, Policy: p.d.policy, Product: "demo", Tries: 1,
		Document: img.doc, Signature: img.sig, Role: "rootfs", Image: stream{bytes.NewReader(img.data)}, ImageSize: -1,
	})
	return err
}

// slotDisk is the other slot of a record.
type slotDisk struct{ r *record }

func (slotDisk) SlotSize(_, _ string) (int64, error) { return slotSize, nil }

func (d slotDisk) OpenSlot(slot, _ string) (update.Target, error) {
	if slot != slotNames[d.r.target] {
		return nil, fmt.Errorf("slot %s is opened for writing; want %s", slot, slotNames[d.r.target])
	}
	return &slotTarget{r: d.r, data: bytes.Repeat([]byte{0xa5}, slotSize)}, nil
}

// slotTarget is a slot with other content.
type slotTarget struct {
	r    *record
	data []byte
}

func (t *slotTarget) WriteAt(p []byte, off int64) (int, error) {
	t.r.add(step{slot: true})
	return copy(t.data[off:], p), nil
}

func (t *slotTarget) Zero(off, n int64) error {
	t.r.add(step{slot: true})
	clear(t.data[off : off+n])
	return nil
}

func (t *slotTarget) Discard(off, n int64) error { return t.Zero(off, n) }

func (t *slotTarget) Flush() error {
	t.r.add(step{synced: true})
	return nil
}

func (t *slotTarget) ReadBackAt(p []byte, off int64) (int, error) { return copy(p, t.data[off:]), nil }
func (t *slotTarget) WrittenOut() int64                           { return slotSize }
func (t *slotTarget) Barriers() int                               { return 0 }
func (t *slotTarget) Engine() string                              { return "memory" }
func (t *slotTarget) Close() error                                { return nil }

// chainOf is chain of areas.
func (l *loader) chainOf(areas [][]byte) []string {
	c := make([][]byte, len(areas))
	for i, a := range areas {
		c[i] = bytes.Clone(a)
	}
	var list []string
	for range 10 {
		list = append(list, l.boot(c))
	}
	return list
}

// TestModel explores the switch protocol of every boot loader, and checks the table of damage.
func TestModel(t *testing.T) {
	list, policy := pool(t)
	faults := scale("UPDATER_PROOF_FAULTS", 1)
	for _, l := range loaders() {
		t.Run(l.name, func(t *testing.T) {
			for _, damage := range damages {
				start := time.Now()
				p := &protocol{t: t, l: l, damage: damage, long: faults > 1, image: list[0], d: &device{policy: policy}, known: map[[32]byte]bool{}}
				err := p.explore(faults)
				want := damage.unit == 0 || slices.Contains(survives[l.name], damage.name)
				if want = want && (faults < 2 || !slices.Contains(bothCopies[l.name], damage.name)); want != (err == nil) {
					t.Errorf("damage %s is survived: %v; want %v: %v", damage.name, err == nil, want, err)
				}
				if err == nil {
					count(t, fmt.Sprintf("states of the switch protocol, %s, damage: %s, %d transitions", l.name, damage.name, p.moves), int64(len(p.known)), start)
				}
			}
		})
	}
}
