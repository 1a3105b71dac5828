package crashdisk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// event is one step of the record.
type event struct {
	at      int
	write   *Write // it may be on the medium from here on
	flush   bool   // a flush has completed
	dropped bool   // the drive has lost writes of its cache
	mark    string
}

// Plan bounds the number of states after a power cut. The zero value is the default.
type Plan struct {
	Exhaustive int    // up to so many volatile sectors every subset is tried; 0 is 8
	Random     int    // random selections of whole writes at each step beyond that; 0 is 4, -1 none
	Torn       int    // random selections of sectors, and cuts inside the newest write; 0 is 4, -1 none
	DropOne    int    // selections that lose a single older write; 0 is 16
	Limit      int    // stop after so many states; 0 means none
	Seed       uint64 // of the random ones
}

// State is one possible content of the medium after a power cut.
type State struct {
	At    int      // step of the record at which the power failed
	Image []byte   // content of the medium; valid during the call only, not to be changed
	Marks []string // the marks that were passed
}

// Has reports whether a mark was passed before the cut.
func (s *State) Has(mark string) bool { return slices.Contains(s.Marks, mark) }

// Violation is a forbidden state and the operations that led to it.
type Violation struct {
	Err    error
	At     int
	States int    // tried up to and with this one
	Trace  []Op   // every operation up to the cut
	Lost   []Loss // lost writes, shrunk to those that the violation needs
}

// Loss is a write that did not reach the medium completely.
type Loss struct {
	Off, Len int64
	Torn     bool // some of its sectors did
	Issued   int
}

func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "power cut at step %d, state %d: %v\nit takes only these losses:\n", v.At, v.States, v.Err)
	for _, l := range v.Lost {
		fmt.Fprintf(&b, "%4d  %s of %d+%d\n", l.Issued, map[bool]string{true: "a part", false: "all"}[l.Torn], l.Off, l.Len)
	}
	b.WriteString("the operations before it:\n")
	skipped := 0
	for _, o := range v.Trace {
		if o.Name == "read" && o.Err == nil {
			skipped++
			continue
		}
		fmt.Fprintln(&b, o)
	}
	fmt.Fprintf(&b, "and %d reads", skipped)
	return b.String()
}

// Unwrap returns the error of the check.
func (v *Violation) Unwrap() error { return v.Err }

// Trace lists every operation so far.
func (d *Disk) Trace() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.trace)
}

// Crashes calls check with the states that a power cut may leave at every step of the record, and returns their number. Each
// step adds the states that contain its write. Crashes stops at the first error of check and returns a [*Violation] with the
// smallest set of losses that shrinking found. check must depend on its State only.
func (d *Disk) Crashes(p Plan, check func(*State) error) (states int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newCrasher(d.start, d.o.Sector, p, check)
	c.damages = d.damages
	for _, e := range d.log {
		if !c.step(e) {
			break
		}
	}
	if v := c.violation; v != nil {
		for _, o := range d.trace {
			if o.At < v.At {
				v.Trace = append(v.Trace, o)
			}
		}
		return c.states, v
	}
	return c.states, nil
}

// crasher walks the record. scratch always equals base between two states.
type crasher struct {
	sector        int64
	plan          Plan
	check         func(*State) error
	rng           *rand.Rand
	base, scratch []byte
	open          []*Write // volatile now
	damages       func(off int64) bool
	spoilt        int64 // offset of a sector that the cut made unreadable; -1 means none
	marks         []string
	states        int
	violation     *Violation
}

func newCrasher(start []byte, sector int64, p Plan, check func(*State) error) *crasher {
	defaults := func(v *int, n int) {
		if *v == 0 {
			*v = n
		}
		*v = max(*v, 0)
	}
	defaults(&p.Exhaustive, 8)
	defaults(&p.Random, 4)
	defaults(&p.Torn, 4)
	defaults(&p.DropOne, 16)
	return &crasher{
		sector: sector, plan: p, check: check, rng: rand.New(rand.NewPCG(p.Seed, 0x637261736865)),
		base: slices.Clone(start), scratch: slices.Clone(start), spoilt: -1,
	}
}

// step applies one event and tries the states that it makes possible. It returns false at the end.
func (c *crasher) step(e event) bool {
	c.open = slices.DeleteFunc(c.open, func(w *Write) bool { return w.gone != 0 && w.gone <= e.at })
	switch {
	case e.write != nil:
		if w := e.write; w.gone != 0 && w.gone <= e.at || w.durable != 0 && w.durable <= e.at {
			return true
		}
		c.open = append(c.open, e.write)
	case e.flush:
		c.open = slices.DeleteFunc(c.open, func(w *Write) bool {
			if w.durable == 0 || w.durable > e.at {
				return false
			}
			copy(c.base[w.Off:], w.Data)
			copy(c.scratch[w.Off:], w.Data)
			return true
		})
	case e.mark != "":
		c.marks = append(c.marks, e.mark)
	}
	return c.enumerate(e)
}

// choice has, for each open write, the sectors that reached the medium; nil means none.
type choice [][]bool

// enumerate tries the states of one step.
func (c *crasher) enumerate(e event) bool {
	if e.write == nil {
		if !c.try(e, make(choice, len(c.open))) {
			return false
		}
		if len(c.open) == 0 {
			return true
		}
	}
	if !c.damage(e) {
		return false
	}
	total := 0
	for _, w := range c.open {
		total += c.sectors(w)
	}
	if total <= c.plan.Exhaustive {
		return c.all(e, total)
	}
	return c.some(e)
}

// damage tries states in which one sector of the newest write is unreadable: the others have all reached the medium, or none has.
func (c *crasher) damage(e event) bool {
	if e.write == nil {
		return true
	}
	at := e.write.Off + int64(c.rng.IntN(c.sectors(e.write)))*c.sector
	if !c.damages(at) {
		return true
	}
	c.spoilt = at
	defer func() { c.spoilt = -1 }()
	for _, others := range []bool{true, false} {
		ch := make(choice, len(c.open))
		for i, w := range c.open {
			ch[i] = make([]bool, c.sectors(w))
			for s := range ch[i] {
				ch[i][s] = others
			}
		}
		if !c.try(e, ch) {
			return false
		}
	}
	return true
}

func (c *crasher) sectors(w *Write) int { return int((int64(len(w.Data)) + c.sector - 1) / c.sector) }

// all tries every subset of the open sectors; after a write, those with a part of it.
func (c *crasher) all(e event, total int) bool {
	newest := 0
	if e.write != nil {
		newest = c.sectors(e.write)
	}
	for mask := 1; mask < 1<<total; mask++ {
		if newest > 0 && mask>>(total-newest) == 0 {
			continue // was tried at the step before
		}
		ch, bit := make(choice, len(c.open)), 0
		for i, w := range c.open {
			ch[i] = make([]bool, c.sectors(w))
			for s := range ch[i] {
				ch[i][s] = mask>>bit&1 == 1
				bit++
			}
		}
		if !c.try(e, ch) {
			return false
		}
	}
	return true
}

// some tries: all writes; only the newest; all but one; the newest torn, with and without the others; random ones.
func (c *crasher) some(e event) bool {
	n := len(c.open)
	last := n - 1
	pick := func(keep func(i int) bool) choice {
		ch := make(choice, n)
		for i, w := range c.open {
			if keep(i) {
				ch[i] = c.whole(w)
			}
		}
		return ch
	}
	if !c.try(e, pick(func(int) bool { return true })) || !c.try(e, pick(func(i int) bool { return i == last })) {
		return false
	}
	for k := range min(last, c.plan.DropOne) {
		lost := k
		if last > c.plan.DropOne {
			lost = c.rng.IntN(last)
		}
		if !c.try(e, pick(func(i int) bool { return i != lost })) {
			return false
		}
	}
	for range c.plan.Random {
		mask := c.rng.Uint64()
		if !c.try(e, pick(func(i int) bool { return i == last || mask>>(i%64)&1 == 1 })) {
			return false
		}
	}
	return c.torn(e, pick)
}

func (c *crasher) torn(e event, pick func(func(int) bool) choice) bool {
	last := len(c.open) - 1
	sectors := c.sectors(c.open[last])
	for k := range c.plan.Torn {
		cut := 1 + c.rng.IntN(max(1, sectors-1))
		for _, others := range []bool{true, false} {
			ch := pick(func(int) bool { return others })
			ch[last] = make([]bool, sectors)
			for s := range cut {
				ch[last][s] = true
			}
			if k%2 == 1 { // the end instead of the start
				slices.Reverse(ch[last])
			}
			if !c.try(e, ch) {
				return false
			}
		}
		ch := make(choice, len(c.open))
		for i, w := range c.open {
			ch[i] = make([]bool, c.sectors(w))
			for s := range ch[i] {
				ch[i][s] = c.rng.IntN(2) == 0
			}
		}
		if !c.try(e, ch) {
			return false
		}
	}
	return true
}

func (c *crasher) whole(w *Write) []bool {
	all := make([]bool, c.sectors(w))
	for i := range all {
		all[i] = true
	}
	return all
}

// try visits one state. It returns false when the walk ends.
func (c *crasher) try(e event, ch choice) bool {
	if c.plan.Limit > 0 && c.states >= c.plan.Limit {
		return false
	}
	c.states++
	err := c.visit(e, ch)
	if err == nil {
		return true
	}
	err = c.shrink(e, ch, err)
	c.violation = &Violation{Err: err, At: e.at, States: c.states}
	for i, w := range c.open {
		if full := ch[i] != nil && !slices.Contains(ch[i], false); !full {
			c.violation.Lost = append(c.violation.Lost, Loss{Off: w.Off, Len: int64(len(w.Data)), Torn: slices.Contains(ch[i], true), Issued: w.issued})
		}
	}
	return false
}

// shrink removes every loss that the violation does not need.
func (c *crasher) shrink(e event, ch choice, err error) error {
	for i, w := range c.open {
		was := ch[i]
		ch[i] = c.whole(w)
		if still := c.visit(e, ch); still != nil {
			err = still
		} else {
			ch[i] = was
		}
	}
	return err
}

func (c *crasher) visit(e event, ch choice) error {
	for i, w := range c.open {
		c.apply(w, ch[i])
	}
	if c.spoilt >= 0 {
		copy(c.scratch[c.spoilt:min(c.spoilt+c.sector, e.write.end())], Unreadable)
	}
	err := c.check(&State{At: e.at, Image: c.scratch, Marks: c.marks})
	for i, w := range c.open {
		if ch[i] != nil {
			copy(c.scratch[w.Off:w.end()], c.base[w.Off:w.end()])
		}
	}
	return err
}

func (c *crasher) apply(w *Write, kept []bool) {
	for s := 0; s < len(kept); {
		if !kept[s] {
			s++
			continue
		}
		from := int64(s) * c.sector
		for s < len(kept) && kept[s] {
			s++
		}
		to := min(int64(s)*c.sector, int64(len(w.Data)))
		copy(c.scratch[w.Off+from:], w.Data[from:to])
	}
}

// Cut returns one random state that a power cut may leave now. Where [Options] allow damage, one sector that was lost may be unreadable.
func (d *Disk) Cut(seed uint64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x637574))
	image := slices.Clone(d.medium)
	lose := rng.IntN(3) // nothing, some writes, some sectors
	spoilt := []int64{} // sectors that may be unreadable
	for _, w := range d.cutable() {
		for s := int64(0); s < int64(len(w.Data)); s += d.o.Sector {
			if lose == 1 && s == 0 && rng.IntN(2) == 0 {
				break
			}
			if lose == 2 && rng.IntN(2) == 0 {
				if d.damages(w.Off + s) {
					spoilt = append(spoilt, w.Off+s)
				}
				continue
			}
			end := min(s+d.o.Sector, int64(len(w.Data)))
			copy(image[w.Off+s:], w.Data[s:end])
		}
	}
	if len(spoilt) > 0 {
		at := spoilt[rng.IntN(len(spoilt))]
		copy(image[at:min(at+d.o.Sector, d.Size())], Unreadable)
	}
	return image
}

// cutable returns the writes that a power cut may lose now: those in the drive's cache, and dirty pages.
func (d *Disk) cutable() []*Write {
	list := slices.Clone(d.pending)
	for _, n := range d.nodes {
		list = append(list, n.dirty...)
	}
	slices.SortStableFunc(list, func(a, b *Write) int { return a.issued - b.issued })
	return list
}
