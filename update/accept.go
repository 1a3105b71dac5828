package update

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"updater/bmap"
	"updater/release"
	"updater/verify"
)

// AnyProduct is the product, and AnyHardware the revision, for checks on a host that is not a device. Never install with them.
const (
	AnyProduct  = "*"
	AnyHardware = "*"
)

// The policies for unmapped blocks. The signed document chooses zero or keep; if it chooses neither, the device may also discard
// them, after which their content is undefined.
const (
	UnmappedZero    = bmap.UnmappedZero
	UnmappedKeep    = bmap.UnmappedKeep
	UnmappedDiscard = "discard"
)

// Conditions are the requirements of a device for a signed bmap.
type Conditions struct {
	Policy  verify.Policy
	Product string   // the device's; AnyProduct on a host; "" if the configuration names none
	Role    string   // partition of the slot to write, such as "rootfs"; "" accepts the document's
	Floor   int64    // lowest rollback index that may be installed
	Require []string // fields of <Update> that must be present, see Fields
	// Hardware are the names that the device's hardware has. A release that is limited to revisions has to list one of them.
	Hardware []string
	Held     bool // the image is in a slot already; its expiry was checked when it was installed
}

// Document is an accepted bmap: signed by enough trusted keys, for this device and role, fresh, and not below the floor.
type Document struct {
	Map      *bmap.Map
	Unmapped string // policy for unmapped blocks: UnmappedZero or UnmappedKeep; "" if the document has none
	Signers  []verify.Signer
	Checksum string   // hex sha256 of the signed bytes
	Warnings []string // protections that the document lacks
}

// NewDocument makes the document of a block map that an accepted release pins by its checksum.
func NewDocument(m *bmap.Map, checksum string, signers []verify.Signer) *Document {
	d := &Document{Map: m, Signers: signers, Checksum: checksum}
	d.Unmapped = d.update().Unmapped
	return d
}

// update is the optional <Update> element, empty if there is none.
func (d *Document) update() bmap.Update {
	if u := d.Map.Update(); u != nil {
		return *u
	}
	return bmap.Update{}
}

// bootSlots reads the boot state.
func (r *run) bootSlots(ctx context.Context) ([]Slot, error) {
	slots, err := r.Boot.Slots(ctx)
	if err != nil {
		return nil, &BootError{Slot: r.Slot, Doing: "reading it", Err: err}
	}
	return slots, nil
}

// mayLeave refuses a running slot that is not good, since it is the fallback.
func (r *run) mayLeave(slots []Slot) error {
	if i := slices.IndexFunc(slots, func(s Slot) bool { return s.Booted && !s.Good }); i >= 0 && !r.ForceFromBad {
		return &NotGoodError{Slot: slots[i].Name}
	}
	return nil
}

// inactiveSlot picks the slot to write: the named one, unless it is booted; otherwise the first slot that is neither booted nor the
// boot loader's next choice. If only the next choice is left, a slot that was not booted yet, it is replaced, so that the running
// slot stays the fallback.
func (r *run) inactiveSlot(slots []Slot) (string, error) {
	if err := r.mayLeave(slots); err != nil {
		return "", err
	}
	names := make([]string, len(slots))
	for i, s := range slots {
		names[i] = s.Name
	}
	if r.Slot != "" {
		i := slices.Index(names, r.Slot)
		if i < 0 {
			return "", &IncompatibleError{Reason: fmt.Sprintf("slot %s is not configured, expected one of %s", r.Slot, strings.Join(names, ", "))}
		}
		if slots[i].Booted {
			return "", &ActiveError{Slot: r.Slot}
		}
		return r.Slot, nil
	}
	for _, skipNext := range []bool{true, false} {
		for _, s := range slots {
			if !s.Booted && (!skipNext || !s.Next) {
				return s.Name, nil
			}
		}
	}
	return "", &IncompatibleError{Reason: fmt.Sprintf("no inactive slot among %s", strings.Join(names, ", "))}
}

// accept accepts the signed document.
func (r *run) accept() error {
	c := Conditions{Policy: r.Policy, Product: r.Product, Role: r.Role, Require: r.Require, Hardware: r.Hardware}
	if c.Held = r.Restore != nil; r.State != nil && !c.Held {
		c.Floor = r.State.Floor()
	}
	if r.Images != nil {
		opened, err := AcceptRelease(r.Document, r.Signature, c)
		if err != nil {
			return err
		}
		r.release, r.signers = opened.Release, opened.Signers
		return r.asked()
	}
	doc, err := Accept(r.Document, r.Signature, c)
	if err != nil {
		return err
	}
	r.bare, r.signers = doc, doc.Signers
	pin := doc.Checksum
	if r.Narrow != nil {
		pin = fmt.Sprintf("%x", sha256.Sum256([]byte(pin+" "+r.Part)))
	}
	if r.release, err = release.Bare(doc.Map, pin, r.Role); err != nil {
		return err
	}
	return r.asked()
}

// asked refuses a release other than the one that was asked for.
func (r *run) asked() error {
	if got := r.release.Identity(); r.Identity != "" && got != r.Identity {
		return &IncompatibleError{Reason: fmt.Sprintf("the release is another one than was requested: its identity is %.16s, expected %.16s", got, r.Identity)}
	}
	return nil
}

// plan accepts the block map of every image for the slot, and checks that it fits.
func (r *run) plan(ctx context.Context) error {
	r.passed = nil
	if r.Images != nil {
		return r.planRelease(ctx)
	}
	doc := *r.bare
	if r.Narrow != nil {
		var err error
		if doc.Map, err = r.Narrow(ctx, doc.Map); err != nil {
			return err
		}
	}
	p := &part{run: r, Document: &doc, role: r.Role, image: r.Image, reopen: r.Reopen}
	r.parts = []*part{p}
	return p.fits()
}

// planRelease is plan for a release.
func (r *run) planRelease(ctx context.Context) error {
	images, err := r.release.ForSlot(r.Slot, r.Layout)
	if err != nil {
		return err
	}
	for _, i := range images {
		data, err := r.Images.Map(ctx, i)
		if err != nil {
			return err
		}
		m, err := r.release.Map(i, data)
		if err != nil {
			return err
		}
		_, once := r.Images.(Stream)
		if once && slices.ContainsFunc(r.parts, func(p *part) bool { return p.source.File == i.File }) {
			return &IncompatibleError{Reason: fmt.Sprintf("image %s is for several roles of slot %s, but a stream has it once", i.File, r.Slot)}
		}
		p := &part{run: r, Document: NewDocument(m, i.BmapSHA256, r.signers), role: i.Role, source: i}
		r.parts = append(r.parts, p)
		if err := p.fits(); err != nil {
			return p.ofFile(err)
		}
	}
	return nil
}

// fits compares the size of the map with the partition.
func (p *part) fits() error {
	p.Unmapped = cmp.Or(p.Unmapped, p.Job.Unmapped, UnmappedZero)
	size, err := p.Disk.SlotSize(p.Slot, p.role)
	if err != nil {
		return err
	}
	if p.Map.ImageSize() > size {
		return &IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit slot %s, whose %s has %d", p.Map.ImageSize(), p.Slot, p.role, size)}
	}
	return nil
}

// AcceptRelease checks the signature of a release document, parses exactly the signed bytes, and checks product, expiry and rollback
// index. signature is nil for a clearsigned document. It reads and writes nothing else. Errors: those of [release.Trust.OpenRelease],
// [IncompatibleError], [HardwareError], [ExpiredError], [RollbackError].
func AcceptRelease(doc, signature []byte, c Conditions) (*release.Opened, error) {
	opened, err := release.Trust{Policy: c.Policy}.OpenRelease(doc, signature)
	if err != nil {
		return nil, err
	}
	if err := c.checkRelease(opened.Release); err != nil {
		return nil, err
	}
	return opened, nil
}

// checkRelease applies the conditions to a release.
func (c Conditions) checkRelease(r *release.Release) error {
	index, device := r.Order().RollbackIndex, c.Product != AnyProduct
	switch {
	case device && r.Product() != c.Product:
		return &IncompatibleError{Reason: fmt.Sprintf("the release is for product %q; this device is %q", r.Product(), c.Product)}
	case device && !c.Held && !c.isHardware(r.Hardware()):
		return &HardwareError{Want: r.Hardware(), Got: c.Hardware}
	case !c.Held && !r.Expires().IsZero() && c.Policy.Time.After(r.Expires()):
		return &ExpiredError{Expires: r.Expires(), Now: c.Policy.Time}
	case index < c.Floor:
		return &RollbackError{Index: index, Floor: c.Floor}
	}
	return nil
}

// isHardware reports whether the device is one of the revisions; an empty list means all.
func (c Conditions) isHardware(revisions []string) bool {
	return len(revisions) == 0 || slices.ContainsFunc(c.Hardware, func(own string) bool { return own == AnyHardware || slices.Contains(revisions, own) })
}

// Accept checks the signature of a bmap, parses exactly the signed bytes, and checks product, role, expiry and rollback index.
// signature is nil for a clearsigned bmap. It reads and writes nothing else. Errors: those of [release.Trust.OpenMap],
// [IncompatibleError], [ExpiredError], [RollbackError].
func Accept(doc, signature []byte, c Conditions) (*Document, error) {
	opened, err := release.Trust{Policy: c.Policy, MaxMap: verify.MaxDocumentSize}.OpenMap(doc, signature, c.Role)
	if err != nil {
		return nil, err
	}
	d := &Document{Map: opened.Map, Signers: opened.Signers, Checksum: opened.SHA256}
	u := d.update()
	if err := c.check(u); err != nil {
		return nil, err
	}
	d.Unmapped = u.Unmapped
	if u.RollbackIndex == 0 {
		d.Warnings = append(d.Warnings, "the signed document has no rollback index: no rollback protection applies")
	}
	return d, nil
}
