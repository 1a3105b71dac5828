package update

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"updater/bmap"
	"updater/verify"
)

// AnyProduct is the product of a check on a host, which is no device. Never install with it.
const AnyProduct = "*"

// Document is an accepted bmap: signed by enough trusted keys, for this device and role, and fresh.
type Document struct {
	Map          *bmap.Map
	KeepUnmapped bool // leave unmapped blocks as they are; else they become zero
	Signers      []verify.Signer
}

// inactiveSlot picks the slot to write. Asked for by name, it is any slot but the booted one. Else it is
// the first slot that neither runs nor is the boot loader's next choice; while the next choice is a slot
// that has not been booted yet, that one is replaced, so that the running slot stays the fallback.
func (r *run) inactiveSlot(ctx context.Context) (string, error) {
	slots, err := r.Boot.Slots(ctx)
	if err != nil {
		return "", &BootError{Slot: r.Slot, Doing: "reading it", Err: err}
	}
	names := make([]string, len(slots))
	for i, s := range slots {
		names[i] = s.Name
	}
	if r.Slot != "" {
		i := slices.Index(names, r.Slot)
		if i < 0 {
			return "", &IncompatibleError{Reason: fmt.Sprintf("slot %s is not configured; there are %s", r.Slot, strings.Join(names, ", "))}
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
	return "", &IncompatibleError{Reason: fmt.Sprintf("no slot is inactive among %s", strings.Join(names, ", "))}
}

// accept is everything that must hold before the target is opened for writing.
func (r *run) accept() (*Document, error) {
	doc, err := Accept(r.Bmap, r.Signature, r.Policy, r.Product, r.Role)
	if err != nil {
		return nil, err
	}
	size, err := r.Disk.SlotSize(r.Slot, r.Role)
	if err != nil {
		return nil, err
	}
	if doc.Map.ImageSize() > size {
		return nil, &IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit slot %s, whose %s partition has %d", doc.Map.ImageSize(), r.Slot, r.Role, size)}
	}
	if r.ImageSize >= 0 && r.ImageSize != doc.Map.ImageSize() {
		return nil, &ImageError{Err: fmt.Errorf("it has %d bytes, the bmap says %d", r.ImageSize, doc.Map.ImageSize())}
	}
	return doc, nil
}

// Accept checks the signature of a bmap, parses exactly the signed bytes, and applies what they say of
// product, role and expiry. signature is nil for a clearsigned bmap. It touches nothing. Errors:
// [verify.SignatureError], [bmap.SyntaxError], [IncompatibleError], [ExpiredError].
func Accept(doc, signature []byte, policy verify.Policy, product, role string) (*Document, error) {
	signed, err := policy.Verify(doc, signature)
	if err != nil {
		return nil, err
	}
	m, err := bmap.Parse(signed.Data)
	if err != nil {
		return nil, err
	}
	switch m.ChecksumType() {
	case "sha256", "sha384", "sha512":
	default:
		return nil, &verify.SignatureError{Reason: fmt.Sprintf("the bmap's checksums are %s, which is too weak to install from; expected sha256, sha384 or sha512", m.ChecksumType())}
	}
	for i, rng := range m.Ranges() {
		if rng.Checksum == "" {
			return nil, &verify.SignatureError{Reason: fmt.Sprintf("range %d (blocks %d-%d) of the bmap has no checksum, so its content is not signed", i, rng.First, rng.Last)}
		}
	}
	d := &Document{Map: m, Signers: signed.Signers}
	if u := m.Update(); u != nil {
		if err := d.obey(u, policy.Time, product, role); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// obey applies the optional <Update> element of the signed document.
func (d *Document) obey(u *bmap.Update, now time.Time, product, role string) error {
	if u.Product != "" && product != AnyProduct && u.Product != product {
		return &IncompatibleError{Reason: fmt.Sprintf("the update is for product %q; this device is %q", u.Product, product)}
	}
	if u.Role != "" && role != "" && u.Role != role {
		return &IncompatibleError{Reason: fmt.Sprintf("the update is for role %q; asked for was %q", u.Role, role)}
	}
	if !u.Expires.IsZero() && now.After(u.Expires) {
		return &ExpiredError{Expires: u.Expires, Now: now}
	}
	d.KeepUnmapped = u.Unmapped == "keep"
	return nil
}
