package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"updater/release"
)

// part is one image of an install under way, with the partition or file that it is written to.
type part struct {
	*run
	*Document
	role   string
	source release.Image // of a release
	image  Image
	closer func() error // of image; nil when the caller of Install closes it
	reopen func(ctx context.Context) (ImageCloser, error)
	target Target

	held              *held        // nil before prepare
	want              selection    // of the ranges that are read from image
	closeSeed         func()       // nil without a seed
	unmade            func() []int // ranges that a delta did not make; nil without one
	behind            *behind      // the read-back under way; nil before write
	late              []Mismatch   // ranges that were written after the others
	fetch             *Fetch
	written, repaired int64 // bytes
	overlap           int64 // bytes that were read back while others were written
}

// open opens the partition for writing, or reserves the room for the file.
func (p *part) open() error { return p.openAs(FileTarget.Reserve) }

// openHeld opens the installed image of the slot.
func (p *part) openHeld() error { return p.openAs(FileTarget.Named) }

func (p *part) openAs(file func(t FileTarget, size int64) error) error {
	target, err := p.Disk.OpenSlot(p.Slot, p.role)
	if err != nil {
		return err
	}
	p.target = target
	if t, ok := target.(FileTarget); ok {
		return file(t, p.Map.ImageSize())
	}
	return nil
}

// commit gives a file its name. A partition has nothing to commit.
func (p *part) commit() error {
	if file, ok := p.target.(FileTarget); ok {
		if err := file.Commit(); err != nil {
			return &WriteError{Slot: p.Slot, Err: err}
		}
	}
	return nil
}

func (p *part) close() {
	p.behind.stop()
	if p.target != nil {
		_ = p.target.Close()
	}
	p.closeImage()
}

// closeImage releases the decoder's memory, and the slot that was copied from, before the next image is read.
func (p *part) closeImage() {
	if p.closer != nil {
		_ = p.closer()
		p.closer = nil
	}
	if p.closeSeed != nil {
		p.closeSeed()
		p.closeSeed = nil
	}
}

func (p *part) flush() error { return p.writing(p.target.Flush()) }

// openImages opens all images, of a stream the first one.
func (r *run) openImages(ctx context.Context) error {
	if s, ok := r.Images.(Stream); ok {
		return r.openNext(ctx, s)
	}
	return r.each(func(p *part) error { return p.openImage(ctx) })
}

// writeImages writes all images, in the order of the release or of a stream, which has to end after them.
func (r *run) writeImages(ctx context.Context) error {
	s, isStream := r.Images.(Stream)
	if !isStream {
		return r.each(func(p *part) error { return p.writeImage(ctx) })
	}
	for r.next != nil {
		if err := r.next.writeImage(ctx); err != nil {
			return err
		}
		if err := r.openNext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) writeImage(ctx context.Context) error {
	defer p.closeImage()
	p.follow(ctx)
	return p.write(ctx)
}

// openNext opens the next image of a stream that is for the slot, and skips the others; next is nil after the last one.
func (r *run) openNext(ctx context.Context, s Stream) error {
	for {
		i, err := s.Next(ctx)
		if err == io.EOF {
			r.next = nil
			return nil
		}
		if err != nil {
			return err
		}
		at := slices.IndexFunc(r.parts, func(p *part) bool { return p.source.File == i.File })
		if at < 0 {
			_ = i.Image.Close()
			continue
		}
		r.next = r.parts[at]
		r.next.image, r.next.closer, r.next.reopen = i.Image, i.Image.Close, i.Reopen
		return r.next.hasSize(i.Size)
	}
}

// openImage opens the image of a release, and compares its size with its map.
func (p *part) openImage(ctx context.Context) error {
	size := p.ImageSize
	if p.Images != nil {
		image, n, err := p.Images.Open(ctx, p.source)
		if err != nil {
			return p.ofFile(err)
		}
		size, p.image, p.closer = n, image, image.Close
		p.reopen = func(ctx context.Context) (ImageCloser, error) {
			image, _, err := p.Images.Open(ctx, p.source)
			return image, err
		}
	}
	return p.hasSize(size)
}

// hasSize compares the size of the image with its map; -1 is unknown.
func (p *part) hasSize(size int64) error {
	if size >= 0 && size != p.Map.ImageSize() {
		return p.ofFile(&ImageError{Err: fmt.Errorf("it has %d bytes, the bmap says %d", size, p.Map.ImageSize())})
	}
	return nil
}

// ofFile adds the file of a release to an error.
func (p *part) ofFile(err error) error {
	if p.Images == nil {
		return err
	}
	return fmt.Errorf("image %s: %w", p.source.File, err)
}

// phaseOf begins a phase of this image, which processes total bytes.
func (p *part) phaseOf(phase Phase, total int64) {
	if len(p.parts) < 2 {
		p.phaseOfShare(phase, total, Share{})
		return
	}
	if p.passed == nil {
		p.passed = map[Phase]int64{}
	}
	of := Share{Role: p.role, Before: p.passed[phase]}
	p.passed[phase] += total
	for _, o := range p.parts {
		of.All += o.amount(phase)
	}
	p.phaseOfShare(phase, total, of)
}

// amount is how many bytes a phase processes for the image.
func (p *part) amount(phase Phase) int64 {
	if phase != PhaseReadBack {
		return p.Map.MappedBytes()
	}
	n := ReadBack{Map: p.Map, Unmapped: p.Unmapped}.Bytes()
	if wholeChecksum(p.Map) != "" {
		n += p.Map.MappedBytes() // its holes are not read for that
	}
	return n
}

func (p *part) readBackWith(progress func(n int64)) ReadBack {
	return ReadBack{Map: p.Map, Unmapped: p.Unmapped, Readers: lateReaders, Sizes: p.Sizes, Progress: progress}
}

// readBackOf begins the read-back phase.
func (p *part) readBackOf() ReadBack {
	b := p.readBackWith(p.progress.add)
	p.phaseOf(PhaseReadBack, b.Bytes())
	return b
}

// readBack compares the rest of the medium with the signed document and repairs it once. It is called after the last flush.
func (p *part) readBack(ctx context.Context) error {
	if p.behind == nil {
		p.follow(ctx)
	}
	b := p.readBackOf()
	bad, err := p.differing(ctx)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		if repairable(bad, p.reopen) {
			p.phase(PhaseRepair)
		}
		if err := b.Repair(ctx, p.target, bad, p.again()); err != nil {
			return p.inSlot(err)
		}
		for _, m := range bad {
			p.repaired += m.Length
		}
	}
	return p.checkWhole(ctx, b, p.target)
}

// again returns a function that reopens the image and counts its progress; nil if it cannot be reopened.
func (p *part) again() func(ctx context.Context) (ImageCloser, error) {
	if p.reopen == nil {
		return nil
	}
	return func(ctx context.Context) (ImageCloser, error) {
		image, err := p.reopen(ctx)
		if err == nil {
			p.progress.reads(image)
		}
		return image, err
	}
}

// checkWhole compares the slot with the checksum of the whole image, if the document has one.
func (p *part) checkWhole(ctx context.Context, b ReadBack, slot ReadBacker) error {
	if wholeChecksum(b.Map) == "" {
		return nil
	}
	p.phaseOf(PhaseReadBack, b.Map.MappedBytes())
	return b.checkWhole(ctx, slot)
}

// inSlot adds the slot to a WriteError.
func (p *part) inSlot(err error) error {
	if w, ok := errors.AsType[*WriteError](err); ok {
		w.Slot = p.Slot
	}
	return err
}

func (p *part) result() ImageResult {
	if p.fetch != nil {
		p.fetch.save() // bytes that were fetched again count now
	}
	res := ImageResult{
		Role: p.role, ImageBytes: p.Map.ImageSize(), MappedBytes: p.Map.MappedBytes(), Unmapped: p.Unmapped, Engine: p.target.Engine(),
		WrittenBytes: p.written, SkippedBytes: p.held.equal.Load(), RepairedBytes: p.repaired, OverlapBytes: p.overlap, Fetch: p.fetch,
	}
	if p.Unmapped == UnmappedZero {
		res.ZeroedBytes = res.ImageBytes - res.MappedBytes
	}
	return res
}
