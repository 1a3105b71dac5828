package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"updater/bmap"
	"updater/verify"
)

// Boot is the boot state as an install needs it. Every mutation is durable and read back when it returns.
type Boot interface {
	// Slots lists the configured slots in their order, as the boot loader sees them now.
	Slots(ctx context.Context) ([]Slot, error)
	// Invalidate makes a slot unbootable. It refuses the booted slot and the last bootable one.
	Invalidate(ctx context.Context, slot string) error
	// Activate makes a slot the next choice for a number of tries, after which the boot loader falls back. It is one atomic change.
	Activate(ctx context.Context, slot string, tries int) error
}

// Slot is one slot of the boot state.
type Slot struct {
	Name     string
	Booted   bool // the running system came from it
	Next     bool // it is the boot loader's next choice
	Bootable bool
	Good     bool // it was marked good since it was installed or, where boots are counted, since it was booted
}

// Disk is where the slots are. The caller holds its install lock, so that no two installs run at once.
type Disk interface {
	// SlotSize is the size in bytes of the slot's partition for a role.
	SlotSize(slot, role string) (int64, error)
	// OpenSlot opens that partition for writing, exclusively.
	OpenSlot(slot, role string) (Target, error)
}

// Target is a slot's partition, opened exclusively. Any error poisons it: nothing is retried. ReadBackAt is called from
// several goroutines at a time, the other methods from one.
type Target interface {
	Medium
	Discard(off, length int64) error // the bytes may read as anything
	WrittenOut() int64               // bytes written that the device has taken
	Engine() string                  // how it writes, for the result
	Close() error
}

// Image is the decoded image stream.
type Image interface {
	io.Reader
	Skip(n int64) error // skips n bytes
	End() error         // nil only if nothing is left and the container ended properly
}

// ImageCloser is an image that was opened for this install.
type ImageCloser interface {
	Image
	io.Closer
}

// Job is one install. Every field without a note is required.
type Job struct {
	Boot  Boot
	Disk  Disk
	State State // nil remembers nothing; the floor is 0

	Bmap      []byte // unverified
	Signature []byte // detached; nil if the bmap is clearsigned
	Policy    verify.Policy
	Product   string   // the device's; "" if the configuration names none
	Role      string   // partition of the slot to write, such as "rootfs"
	Require   []string // fields of <Update> that must be present, see Fields

	Image     Image
	ImageSize int64 // decoded size in bytes, -1 if it is unknown before the end
	// Narrow derives the map of Image from the accepted map of something larger, such as a whole disk. It must not return a range
	// that the accepted map does not cover. It may be nil.
	Narrow func(ctx context.Context, m *bmap.Map) (*bmap.Map, error)
	// Reopen opens the image again from its beginning to repair what reads back wrong. Nil repairs nothing.
	Reopen func(ctx context.Context) (ImageCloser, error)

	// Seed opens the same partition of a slot other than the one that is written, to copy ranges from. It is used if Image is a
	// [Sparse]. It may be nil.
	Seed func(slot, role string) (Seed, error)

	Slot     string // "" picks the inactive slot
	Tries    int
	Unmapped string // policy for unmapped blocks if the signed document has none; "" is UnmappedZero
	Rewrite  bool   // also write ranges that the slot already holds
	// ForceFromBad installs although the running slot was not marked good. If the new slot fails, too, there may be no fallback.
	ForceFromBad bool

	// PreInstall may refuse an accepted document before anything is written; PostInstall may refuse the switch after the read-back.
	// Install returns their errors. Both may be nil.
	PreInstall, PostInstall func(ctx context.Context, p Planned) error

	Progress *Progress // may be nil
}

// Planned describes an install whose document was accepted.
type Planned struct {
	Slot, Role       string
	Product, Version string // as signed; may be empty
	RollbackIndex    int64  // 0 is none
	ImageBytes       int64
}

// Result reports an install.
type Result struct {
	Slot        string          `json:"slot"`
	Role        string          `json:"role"`
	Product     string          `json:"product,omitempty"`
	Version     string          `json:"version,omitempty"`
	Index       int64           `json:"rollback_index,omitempty"`
	Signers     []verify.Signer `json:"signers"`
	ImageBytes  int64           `json:"image_bytes"`
	MappedBytes int64           `json:"mapped_bytes"`
	Unmapped    string          `json:"unmapped"` // zero, keep or discard
	// Mapped bytes that were written and those that the slot already held; unmapped bytes that read as zero now; bytes that were
	// written again.
	WrittenBytes  int64    `json:"written_bytes"`
	SkippedBytes  int64    `json:"skipped_bytes"`
	ZeroedBytes   int64    `json:"zeroed_bytes"`
	RepairedBytes int64    `json:"repaired_bytes,omitempty"`
	Fetch         *Fetch   `json:"fetch,omitempty"` // of an image on a server
	Engine        string   `json:"engine"`
	Tries         int      `json:"tries"`
	Warnings      []string `json:"warnings,omitempty"`
	Seconds       Timings  `json:"seconds"`
}

// Timings are the durations of the phases of an install, in seconds.
type Timings map[Phase]float64

// Install runs the steps of the package comment, in that order. A nil error means that the slot holds the signed image, read back
// from the medium, and is the boot loader's next choice, both durably. Errors: [ActiveError], [NotGoodError], [IncompatibleError],
// [ExpiredError], [RollbackError], [ImageError], [SourceError], [WriteError], [ReadBackError], [BootError], [verify.SignatureError],
// [bmap.SyntaxError], those of the State and the hooks, and the cause of a cancelled context.
func Install(ctx context.Context, job Job) (_ *Result, err error) {
	run := &run{Job: job, timer: newTimer(job.Progress)}

	run.phase(PhaseCheck)
	slot, err := run.inactiveSlot(ctx)
	if err != nil {
		return nil, err
	}
	run.Slot = slot
	doc, err := run.accept(ctx)
	if err != nil {
		return nil, err
	}
	if err := run.ask(ctx, job.PreInstall, doc); err != nil {
		return nil, err
	}
	target, err := job.Disk.OpenSlot(slot, job.Role)
	if err != nil {
		return nil, err
	}
	defer func() { _ = target.Close() }() // the data was flushed and read back by then
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := run.record(doc, OutcomeWriting, ""); err != nil {
		return nil, err
	}
	defer func() { run.ended(doc, err) }()
	if err := job.Boot.Invalidate(ctx, slot); err != nil {
		return nil, &BootError{Slot: slot, Doing: "marking it bad", Err: err}
	}

	if err := run.write(ctx, doc, target); err != nil {
		return nil, err
	}
	run.phase(PhaseFlush)
	if err := target.Flush(); err != nil {
		return nil, &WriteError{Slot: slot, Err: err}
	}
	if err := run.readBack(ctx, doc, target); err != nil {
		return nil, err
	}
	if err := run.ask(ctx, job.PostInstall, doc); err != nil {
		return nil, err
	}

	run.phase(PhaseSwitch)
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := run.record(doc, OutcomeInstalled, ""); err != nil {
		return nil, err
	}
	if err := run.activate(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return run.result(doc, target), nil
}

// run is one install under way. Its Slot is set from the first step on.
type run struct {
	Job
	*timer
	noted             Outcome // the last one recorded
	held              *held
	fetch             *Fetch
	written, repaired int64 // bytes
}

// ask calls a hook; nil accepts.
func (r *run) ask(ctx context.Context, hook func(context.Context, Planned) error, doc *Document) error {
	if hook == nil {
		return nil
	}
	u := doc.update()
	return hook(ctx, Planned{
		Slot: r.Slot, Role: r.Role, Product: u.Product, Version: u.Version, RollbackIndex: u.RollbackIndex, ImageBytes: doc.Map.ImageSize(),
	})
}

// readBackOf begins the read-back phase.
func (r *run) readBackOf(doc *Document) ReadBack {
	b := ReadBack{Map: doc.Map, Unmapped: doc.Unmapped, Readers: readers, Progress: r.progress.add}
	r.phaseOf(PhaseReadBack, b.Bytes())
	return b
}

// readBack compares the medium with the signed document and repairs it once.
func (r *run) readBack(ctx context.Context, doc *Document, target Target) error {
	b := r.readBackOf(doc)
	bad, err := b.Compare(ctx, target)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		if repairable(bad, r.Reopen) {
			r.phase(PhaseRepair)
		}
		if err := b.Repair(ctx, target, bad, r.Reopen); err != nil {
			return r.inSlot(err)
		}
		for _, m := range bad {
			r.repaired += m.Length
		}
	}
	return r.checkWhole(ctx, b, target)
}

// checkWhole compares the slot with the checksum of the whole image, if the document has one.
func (r *run) checkWhole(ctx context.Context, b ReadBack, slot ReadBacker) error {
	if wholeChecksum(b.Map) == "" {
		return nil
	}
	r.phaseOf(PhaseReadBack, b.Map.ImageSize())
	return b.checkWhole(ctx, slot)
}

// inSlot adds the slot to a WriteError.
func (r *run) inSlot(err error) error {
	if w, ok := errors.AsType[*WriteError](err); ok {
		w.Slot = r.Slot
	}
	return err
}

// activate switches and reads the switch back.
func (r *run) activate(ctx context.Context) error {
	slot := r.Slot
	if err := r.Boot.Activate(ctx, slot, r.Tries); err != nil {
		return &BootError{Slot: slot, Doing: "activating it", Err: err}
	}
	slots, err := r.Boot.Slots(ctx)
	if err != nil {
		return &BootError{Slot: slot, Doing: "reading the switch back", Err: err}
	}
	for _, s := range slots {
		if s.Next && s.Name == slot {
			return nil
		}
	}
	return &BootError{Slot: slot, Doing: "reading the switch back", Err: fmt.Errorf("it is not the boot loader's next choice")}
}

func (r *run) result(doc *Document, target Target) *Result {
	res := &Result{
		Slot: r.Slot, Role: r.Role, Signers: doc.Signers, Tries: r.Tries, Engine: target.Engine(),
		ImageBytes: doc.Map.ImageSize(), MappedBytes: doc.Map.MappedBytes(), Unmapped: doc.Unmapped,
		WrittenBytes: r.written, SkippedBytes: r.held.equal.Load(), RepairedBytes: r.repaired, Fetch: r.fetch, Warnings: doc.Warnings, Seconds: r.stop(),
	}
	if doc.Unmapped == UnmappedZero {
		res.ZeroedBytes = res.ImageBytes - res.MappedBytes
	}
	if u := doc.Map.Update(); u != nil {
		res.Product, res.Version, res.Index = u.Product, u.Version, u.RollbackIndex
	}
	return res
}

// cancelled is the cause of a cancelled context, nil before that.
func cancelled(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// timer records the durations of the phases.
type timer struct {
	progress *Progress
	current  Phase
	since    time.Time
	spent    Timings
}

func newTimer(p *Progress) *timer {
	if p == nil {
		p = new(Progress)
	}
	return &timer{progress: p, spent: Timings{}}
}

// phase ends the current phase and begins p, whose amount of work is unknown.
func (t *timer) phase(p Phase) { t.phaseOf(p, 0) }

// phaseOf ends the current phase and begins p, which processes total bytes.
func (t *timer) phaseOf(p Phase, total int64) {
	now := time.Now()
	if t.current != "" {
		t.spent[t.current] += now.Sub(t.since).Seconds()
	}
	t.current, t.since = p, now
	if p != "" {
		t.progress.begin(p, total)
	}
}

// soFar is a copy of the timings, including the current phase.
func (t *timer) soFar() Timings {
	spent := maps.Clone(t.spent)
	spent[t.current] += time.Since(t.since).Seconds()
	return spent
}

func (t *timer) stop() Timings {
	t.phaseOf("", 0)
	return t.spent
}
