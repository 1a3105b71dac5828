package update

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"updater/bmap"
	"updater/release"
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
	// SlotSize is the size in bytes of the slot's partition for a role, or the room that a file may take.
	SlotSize(slot, role string) (int64, error)
	// OpenSlot opens that partition for writing, exclusively, or a [FileTarget].
	OpenSlot(slot, role string) (Target, error)
}

// Target is a slot's partition, opened exclusively. Any error poisons it: nothing is retried. ReadBackAt is called from
// several goroutines at a time, the other methods from one.
type Target interface {
	Medium
	Discard(off, length int64) error // the bytes may read as anything
	WrittenOut() int64               // bytes written out to the device
	// Barriers counts the completed flushes, including the target's own, if the medium may be read back while it is written: see
	// docs/durability.md. Otherwise it stays 0, and everything is read after the last flush.
	Barriers() int
	Engine() string // how it writes, for the result
	Close() error
}

// FileTarget is a role that is a file. It is written under another name until it was read back.
type FileTarget interface {
	Target
	// Reserve takes room for size bytes, durably. It is called before every other method, and before the slot is invalidated.
	Reserve(size int64) error
	// Named opens the file under its name instead, to be read back and not written. It fails if the file does not have size bytes.
	Named(size int64) error
	// Commit gives the file its name, durably. It is called once, after Flush and the read-back.
	Commit() error
}

// Judge is a target that may refuse an image by its first bytes, before the slot is marked bad.
type Judge interface {
	// CheckImage returns why an image of size bytes cannot serve there, nil if it may. head is at least 4096 bytes, or all of it.
	CheckImage(head []byte, size int64) error
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

// Images provides the files that a release names.
type Images interface {
	// Map reads the block map of an image. Nothing of it is trusted.
	Map(ctx context.Context, i release.Image) ([]byte, error)
	// Open opens an image from its beginning, and returns its decoded size in bytes, -1 if that is unknown before the end. It may
	// be called again, to repair ranges that read back wrong.
	Open(ctx context.Context, i release.Image) (image ImageCloser, size int64, err error)
}

// Stream is a release whose images come in one pass.
type Stream interface {
	Images
	// Next opens the image that comes next. It returns io.EOF when all of the release came and nothing else.
	Next(ctx context.Context) (StreamImage, error)
}

// StreamImage is one image of a [Stream].
type StreamImage struct {
	File   string // as the release has it
	Size   int64  // decoded, in bytes; -1 if it is unknown before the end
	Image  ImageCloser
	Reopen func(ctx context.Context) (ImageCloser, error) // nil if the stream cannot be read again
}

// Job is one install. Every field without a note is required.
type Job struct {
	Boot  Boot
	Disk  Disk
	State State // nil remembers nothing; the floor is 0

	Document  []byte // unverified: a bmap, or a release when there are Images
	Signature []byte // detached; nil if the document is clearsigned
	Policy    verify.Policy
	Product   string   // the device's; "" if the configuration names none
	Hardware  []string // names of the device's hardware; a release may be limited to some
	Require   []string // fields of <Update> that must be present, see Fields

	// Images has the block maps and images of a release; a [Stream] brings the images in its own order. Nil installs the one image of a bmap.
	Images Images
	Layout release.Layout // slots and roles of the device, for a release
	Role   string         // partition of the slot to write, such as "rootfs", for a bmap

	Image     Image // of a bmap
	ImageSize int64 // decoded size in bytes, -1 if it is unknown before the end
	// Narrow derives the map of Image from the accepted map of something larger, such as a whole disk. It must not return a range
	// that the accepted map does not cover. It may be nil. Part names the part that it takes; the identity of the release covers it.
	Narrow func(ctx context.Context, m *bmap.Map) (*bmap.Map, error)
	Part   string
	// Reopen opens the image again from its beginning to repair ranges that read back wrong. Nil repairs nothing.
	Reopen func(ctx context.Context) (ImageCloser, error)

	// Seed opens the same partition of a slot other than the one that is written, to copy ranges from. It is used if Image is a
	// [Sparse]. It may be nil.
	Seed func(slot, role string) (Seed, error)

	Identity string // of the only release that is accepted; "" accepts every one
	Slot     string // "" picks the inactive slot
	Tries    int
	Unmapped string // policy for unmapped blocks if the signed document has none; "" is UnmappedZero
	Rewrite  bool   // also write ranges that the slot already holds, and a release that is installed already
	IfNewer  bool   // install only a release newer than those of the running and of the next slot
	// DownloadOnly ends after the read-back, without a switch. The slot stays marked bad until it is activated.
	DownloadOnly bool
	// Restore replaces the switch: it makes a slot whose release a scrub found damaged the fallback. The slot held the release before,
	// so neither its expiry nor the floor counts. Nil installs.
	Restore func(ctx context.Context, slot string) error
	// ForceFromBad installs although the running slot was not marked good. If the new slot fails, too, there may be no fallback.
	ForceFromBad bool

	// PreInstall may refuse an accepted document before anything is written; PostInstall may refuse the switch after the read-back.
	// Install returns their errors. Both may be nil.
	PreInstall, PostInstall func(ctx context.Context, p Planned) error

	Progress *Progress // may be nil
	Sizes              // zero is the default
}

// Planned describes an install whose document was accepted.
type Planned struct {
	Slot             string
	Identity         string // of the release
	Roles            []string
	Product, Version string // as signed; may be empty
	RollbackIndex    int64  // 0 means none
	ImageBytes       int64  // of all images
}

// Result reports an install. Its bytes are those of all images.
type Result struct {
	Slot     string          `json:"slot"`
	Identity string          `json:"identity,omitempty"` // of the release
	Product  string          `json:"product,omitempty"`
	Version  string          `json:"version,omitempty"`
	Index    int64           `json:"rollback_index,omitempty"`
	Signers  []verify.Signer `json:"signers"`
	Tries    int             `json:"tries"`
	// Downloaded reports that there was no switch to the slot, see Job.DownloadOnly.
	Downloaded bool     `json:"downloaded,omitempty"`
	Warnings   []string `json:"warnings,omitempty"`
	Seconds    Timings  `json:"seconds"`
	ImageResult
	Images []ImageResult `json:"images,omitempty"` // of a release, in its order
}

// Roles lists the roles that were written.
func (r *Result) Roles() []string {
	if len(r.Images) == 0 {
		return []string{r.Role}
	}
	var roles []string
	for _, i := range r.Images {
		roles = append(roles, i.Role)
	}
	return roles
}

// ImageResult reports one image of an install.
type ImageResult struct {
	Role        string `json:"role,omitempty"` // "" for several images
	ImageBytes  int64  `json:"image_bytes"`
	MappedBytes int64  `json:"mapped_bytes"`
	Unmapped    string `json:"unmapped,omitempty"` // zero, keep or discard; "" for several images that differ
	// Mapped bytes that were written and those that the slot already held; unmapped bytes that read as zero now; bytes that were
	// written again.
	WrittenBytes  int64  `json:"written_bytes"`
	SkippedBytes  int64  `json:"skipped_bytes"`
	ZeroedBytes   int64  `json:"zeroed_bytes"`
	RepairedBytes int64  `json:"repaired_bytes,omitempty"`
	OverlapBytes  int64  `json:"overlap_bytes,omitempty"` // bytes that were read back while others were written
	Fetch         *Fetch `json:"fetch,omitempty"`         // of an image on a server
	Engine        string `json:"engine"`
}

// Timings are the durations of the phases of an install, in seconds.
type Timings map[Phase]float64

// Install runs the steps of the package comment, in that order. A nil error means that the slot holds every image of the release, read back from the
// medium, and is the boot loader's next choice unless it was only downloaded, all of it durably. Errors: [NothingError], [ActiveError],
// [NotGoodError], [IncompatibleError], [ExpiredError], [RollbackError], [ImageError], [SourceError], [WriteError], [ReadBackError], [BootError],
// [verify.SignatureError], [bmap.SyntaxError], those of package release, the State and the hooks, and the cause of a cancelled context.
func Install(ctx context.Context, job Job) (_ *Result, err error) {
	run := &run{Job: job, timer: newTimer(job.Progress)}
	run.Sizes = run.orDefault()
	defer run.close() // the data was flushed and read back by then

	run.phase(PhaseCheck)
	slots, err := run.bootSlots(ctx)
	if err != nil {
		return nil, err
	}
	if err := run.accept(); err != nil {
		return nil, err
	}
	if held, err := run.held(ctx, slots); held || err != nil {
		return run.reactivate(ctx, err)
	}
	if run.Slot, err = run.inactiveSlot(slots); err != nil {
		return nil, err
	}
	if err := run.plan(ctx); err != nil {
		return nil, err
	}
	if err := run.openImages(ctx); err != nil {
		return nil, err
	}
	if err := run.ask(ctx, job.PreInstall); err != nil {
		return nil, err
	}
	if err := run.each((*part).open); err != nil {
		return nil, err
	}
	if err := run.fetchFirst(ctx); err != nil {
		return nil, err
	}
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := run.record(OutcomeWriting, ""); err != nil {
		return nil, err
	}
	defer func() { run.ended(err) }()
	if err := job.Boot.Invalidate(ctx, run.Slot); err != nil {
		return nil, &BootError{Slot: run.Slot, Doing: "marking it bad", Err: err}
	}

	if err := run.writeImages(ctx); err != nil {
		return nil, err
	}
	run.phase(PhaseFlush)
	if err := run.each((*part).flush); err != nil {
		return nil, err
	}
	if err := run.each(func(p *part) error { return p.readBack(ctx) }); err != nil {
		return nil, err
	}
	if err := run.ask(ctx, job.PostInstall); err != nil {
		return nil, err
	}

	run.phase(PhaseSwitch)
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := run.each((*part).commit); err != nil {
		return nil, err
	}
	if err := run.record(OutcomeInstalled, ""); err != nil {
		return nil, err
	}
	if job.DownloadOnly {
		res := run.result()
		res.Downloaded, res.Tries = true, 0
		return res, nil
	}
	finish := run.activate
	if job.Restore != nil {
		finish = func(ctx context.Context) error { return job.Restore(ctx, run.Slot) }
	}
	if err := finish(context.WithoutCancel(ctx)); err != nil {
		// One copy of the boot state may already choose the slot, and a misdirected write of the other may have damaged it.
		_ = job.Boot.Invalidate(context.WithoutCancel(ctx), run.Slot)
		return nil, err
	}
	return run.result(), nil
}

// run is one install under way. Its Slot is set from the first step on.
type run struct {
	Job
	*timer
	release *release.Release
	signers []verify.Signer
	bare    *Document // of a bmap
	parts   []*part
	next    *part           // of a stream, whose image is open
	passed  map[Phase]int64 // bytes of the images whose phase has begun
	noted   Outcome         // the last one recorded
}

// each calls a step for every image, and ends at the first error.
func (r *run) each(step func(p *part) error) error {
	for _, p := range r.parts {
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

// fetchFirst prepares images up to the first one that lacks a range, which is fetched and checked. The others are prepared in their
// turn: each decoder takes memory.
func (r *run) fetchFirst(ctx context.Context) error {
	if r.next != nil { // no other image of a stream is open
		_, err := r.next.prepare(ctx)
		return err
	}
	for _, p := range r.parts {
		if missing, err := p.prepare(ctx); missing || err != nil {
			return err
		}
	}
	return nil
}

// close ends the read-backs and closes all targets and images.
func (r *run) close() {
	for _, p := range r.parts {
		p.close()
	}
}

// planned describes the install to hooks.
func (r *run) planned() Planned {
	p := Planned{Slot: r.Slot, Identity: r.release.Identity(), Product: r.release.Product(), Version: r.release.Version(), RollbackIndex: r.release.Order().RollbackIndex}
	for _, part := range r.parts {
		p.Roles = append(p.Roles, part.role)
		p.ImageBytes += part.Map.ImageSize()
	}
	return p
}

// ask calls a hook; nil accepts.
func (r *run) ask(ctx context.Context, hook func(context.Context, Planned) error) error {
	if hook == nil {
		return nil
	}
	return hook(ctx, r.planned())
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

func (r *run) result() *Result {
	res := &Result{
		Slot: r.Slot, Identity: r.release.Identity(), Product: r.release.Product(), Version: r.release.Version(),
		Index: r.release.Order().RollbackIndex, Signers: r.signers, Tries: r.Tries, Seconds: r.stop(),
	}
	for _, p := range r.parts {
		res.Warnings = append(res.Warnings, p.Warnings...)
		res.Images = append(res.Images, p.result())
	}
	res.ImageResult = total(res.Images)
	if r.Images == nil {
		res.Images = nil
	}
	return res
}

// total adds up the images of an install.
func total(images []ImageResult) ImageResult {
	sum := images[0]
	for _, i := range images[1:] {
		sum.Role, sum.Fetch = "", nil
		if sum.Unmapped != i.Unmapped {
			sum.Unmapped = ""
		}
		sum.ImageBytes += i.ImageBytes
		sum.MappedBytes += i.MappedBytes
		sum.WrittenBytes += i.WrittenBytes
		sum.SkippedBytes += i.SkippedBytes
		sum.ZeroedBytes += i.ZeroedBytes
		sum.RepairedBytes += i.RepairedBytes
		sum.OverlapBytes += i.OverlapBytes
	}
	return sum
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
func (t *timer) phase(p Phase) { t.phaseOfShare(p, 0, Share{}) }

// phaseOfShare ends the current phase and begins p, which processes total bytes, of one of several images.
func (t *timer) phaseOfShare(p Phase, total int64, of Share) {
	now := time.Now()
	if t.current != "" {
		t.spent[t.current] += now.Sub(t.since).Seconds()
	}
	t.current, t.since = p, now
	if p != "" {
		t.progress.begin(p, total, of)
	}
}

// soFar is a copy of the timings, including the current phase.
func (t *timer) soFar() Timings {
	spent := maps.Clone(t.spent)
	spent[t.current] += time.Since(t.since).Seconds()
	return spent
}

func (t *timer) stop() Timings {
	t.phase("")
	return t.spent
}
