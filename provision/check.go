package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"updater/bmap"
)

// changing lists the parts of a payload that are not what the image says once a device is provisioned: the partition
// tables, the identity, and what the plan says.
func (p *Plan) changing(u *unit, pl *Payload) []bmap.Span {
	base, _, err := pl.place(u)
	if err != nil {
		return nil
	}
	var spans []bmap.Span
	for _, part := range u.parts {
		if slices.Contains(p.Changes, part.Name) || p.Identity != nil && part.Name == p.Identity.Partition {
			spans = append(spans, bmap.Span{Offset: part.Offset - base, Length: part.Length})
		}
	}
	if pl.Partition == "" {
		table := int64(2*u.disk.Sector + 16384)
		spans = append(spans, bmap.Span{Offset: 0, Length: table},
			bmap.Span{Offset: pl.Doc.Map.ImageSize() - table, Length: table}, bmap.Span{Offset: u.disk.Size - table, Length: table})
	}
	return spans
}

// checkSink compares instead of writing.
type checkSink struct {
	u    *unit
	base int64
	skip []bmap.Span // in the image
	buf  []byte
}

// WriteAt compares p with what the medium has at off.
func (c *checkSink) WriteAt(p []byte, off int64) (int, error) {
	return len(p), c.each(off, int64(len(p)), func(got []byte, at int64) error {
		if want := p[at-off:][:len(got)]; !bytes.Equal(got, want) {
			return fmt.Errorf("at %d: it differs from the image", c.base+at)
		}
		return nil
	})
}

// Zero checks that the medium has zeros.
func (c *checkSink) Zero(off, length int64) error {
	return c.each(off, length, func(got []byte, at int64) error {
		if i := firstNonZero(got); i >= 0 {
			return fmt.Errorf("at %d: it is %#02x, expected zero", c.base+at+int64(i), got[i])
		}
		return nil
	})
}

// each reads a part of the medium in pieces, without what may differ.
func (c *checkSink) each(off, length int64, take func(got []byte, at int64) error) error {
	if c.buf == nil {
		c.buf = make([]byte, compareSize)
	}
	dev := c.u.device()
	for at, end := off, off+length; at < end; {
		n := min(end-at, compareSize)
		for _, s := range c.skip {
			switch {
			case at >= s.Offset && at < s.Offset+s.Length:
				n = min(end, s.Offset+s.Length) - at
				at, n = at+n, 0
			case at < s.Offset && s.Offset < at+n:
				n = s.Offset - at
			}
			if n == 0 {
				break
			}
		}
		if n == 0 {
			continue
		}
		if _, err := dev.ReadBackAt(c.buf[:n], c.base+at); err != nil {
			return err
		}
		if err := take(c.buf[:n], at); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// finishCheck compares what is in no image: the partition table, and the identity with what the record of the pass says.
func (r *run) finishCheck(ctx context.Context, u *unit) error {
	u.step("identity", 0)
	var err error
	if r.Plan.Image == nil {
		err = CheckTable(u.device(), u.parts, u.disk.Sector)
	} else if len(u.parts) > 0 {
		_, err = readTable(u.device(), u.disk.Sector)
	}
	if err != nil {
		return u.medium("checking", err)
	}
	if r.Plan.Identity != nil {
		if err := r.checkIdentity(u); err != nil {
			return u.medium("checking", err)
		}
	}
	return r.pass(ctx, u)
}

// checkIdentity finds the record of this unit's pass, and compares every file that it names.
func (r *run) checkIdentity(u *unit) error {
	w, err := u.window(r.Plan.Identity.Partition)
	if err != nil {
		return err
	}
	fs, err := openFilesystem(w.fromMedium())
	if err != nil {
		return err
	}
	serial, err := getFile(fs, serialFile)
	if err != nil {
		return err
	}
	rec := r.Spool.passed(string(serial))
	if rec == nil {
		return fmt.Errorf("the spool has no pass of serial %.80q", serial)
	}
	u.before.Serial = string(serial)
	latch, err := getFile(fs, latchFile)
	if err != nil {
		return err
	}
	if rec.Latch != "" && rec.Latch != digest(latch) {
		return errors.New("the latch is not the one of its record")
	}
	for name, want := range rec.Identity.Files {
		data, err := getFile(fs, name)
		if err != nil {
			return err
		}
		if digest(data) != want {
			return fmt.Errorf("file %s is not the one of its record", name)
		}
	}
	return nil
}
