package medium

import (
	"bytes"
	"fmt"
	"slices"

	"updater/bmap"
	"updater/provision/fan"
	"updater/provision/plan"
	"updater/update"
)

// gptEntries is the size of the 128 entries of a partition table, in bytes.
const gptEntries = 16384

// Checker is a sink that compares an image with the medium and writes nothing. It skips the ranges that differ once a device is
// provisioned: the copies of a GPT, the identity, and the partitions that the plan lists.
func (m *Medium) Checker(p *plan.Plan, pl *Payload) (fan.Sink, error) {
	base, _, err := m.place(pl.Partition)
	c := &checker{m: m, base: base, buf: make([]byte, readBackBuffer)}
	for _, part := range m.parts {
		if slices.Contains(p.Changes, part.Name) || p.Identity != nil && part.Name == p.Identity.Partition {
			c.skip = append(c.skip, bmap.Span{Offset: part.Offset - base, Length: part.Length})
		}
	}
	if pl.Partition == "" && len(m.parts) > 0 {
		table := int64(2*m.sector + gptEntries) // at the front, at the end of the image, and at the end of the disk
		for _, off := range []int64{0, pl.Doc.Map.ImageSize() - table, m.Size() - table} {
			c.skip = append(c.skip, bmap.Span{Offset: off, Length: table})
		}
	}
	return c, err
}

type checker struct {
	m    *Medium
	base int64       // of the image on the disk
	skip []bmap.Span // in the image
	buf  []byte
}

// WriteAt compares p with the medium at off.
func (c *checker) WriteAt(p []byte, off int64) (int, error) {
	return len(p), c.each(off, int64(len(p)), func(got []byte, at int64) error {
		if want := p[at-off:][:len(got)]; !bytes.Equal(got, want) {
			return fmt.Errorf("the medium differs from the image in the %d bytes at %d", len(got), c.base+at)
		}
		return nil
	})
}

// Zero checks that the medium has zeros.
func (c *checker) Zero(off, length int64) error {
	return c.each(off, length, func(got []byte, at int64) error {
		if i := update.FirstNonZero(got); i >= 0 {
			return fmt.Errorf("unmapped byte at %d is %#02x, expected zero", c.base+at+int64(i), got[i])
		}
		return nil
	})
}

// each reads a part of the medium in pieces, without the ranges that may differ.
func (c *checker) each(off, length int64, take func(got []byte, at int64) error) error {
	for at, end := off, off+length; at < end; {
		n, skip := c.next(at, end)
		if !skip {
			if _, err := c.m.ReadBackAt(c.buf[:n], c.base+at); err != nil {
				return err
			}
			if err := take(c.buf[:n], at); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

// next is the length of the next piece at an offset, and whether it is skipped.
func (c *checker) next(at, end int64) (n int64, skip bool) {
	n = min(end-at, int64(len(c.buf)))
	for _, s := range c.skip {
		switch {
		case at >= s.Offset && at < s.Offset+s.Length:
			return min(end, s.Offset+s.Length) - at, true
		case at < s.Offset:
			n = min(n, s.Offset-at)
		}
	}
	return n, false
}
