// Package barebox keeps the slot choice in the state of barebox's bootchooser: for each target the variables
// remaining_attempts and priority, in the raw format of barebox's state framework (common/state/backend_format_raw.c), in
// three direct buckets (backend_bucket_direct.c). Bootchooser boots the target with the highest priority that has attempts
// left. Every boot spends an attempt, even of a good target, so mark-good must run after each boot.
//
// The device tree of the board defines the layout of the data; the configuration repeats its offsets. As in barebox, the
// first valid bucket is used. A change writes the three buckets one by one with a flush after each. While one bucket is
// being written the others are intact, so the change is atomic.
package barebox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"updater/boot"
	"updater/boot/scheme"
)

const (
	buckets     = 3
	bucketMagic = 0x2354fdf3
	bucketHead  = 8  // u32 magic, u32 length of what follows
	rawHead     = 16 // u32 magic, u16 0, u16 length of the data, u32 checksum of the data, u32 checksum of these
)

// Target holds the offsets of a slot's variables in the data, in bytes.
type Target struct{ Attempts, Priority int }

// Options configure the backend.
type Options struct {
	Area      boot.Area // the three buckets
	Stride    int64     // bytes from one bucket to the next
	Magic     uint32    // magic property of the state's device tree node
	Slots     []string
	Targets   map[string]Target
	GoodTries int // attempts of a good target: the default of remaining_attempts in the device tree; 0 means 3
}

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	if o.Stride < bucketHead+rawHead || o.Stride > 1<<20 || o.Area.Size() < buckets*o.Stride {
		return nil, fmt.Errorf("%w: %s has %d bytes; expected at least %d buckets of %d", boot.ErrState, o.Area, o.Area.Size(), buckets, o.Stride)
	}
	for _, s := range o.Slots {
		if t, ok := o.Targets[s]; !ok || min(t.Attempts, t.Priority) < 0 || max(t.Attempts, t.Priority) > 1<<16 {
			return nil, fmt.Errorf("%w: slot %s: offsets of attempts and priority are missing or out of range", boot.ErrState, s)
		}
	}
	if o.GoodTries == 0 {
		o.GoodTries = 3
	}
	return scheme.New(&store{o}, o.Slots, booted)
}

type store struct{ Options }

// Rules implements [scheme.Store].
func (s *store) Rules() scheme.Rules {
	return scheme.Rules{MaxTries: 99, GoodTries: s.GoodTries, CountsGood: true, SwitchAtomic: true}
}

// Load implements [scheme.Store]. As barebox does (common/state/backend_storage.c, state_storage_read), it uses the first
// bucket that can be read and has valid checksums.
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	r := &record{store: s}
	var errs []error
	for i := range buckets {
		data, err := s.bucket(int64(i) * s.Stride)
		if err == nil {
			if err = s.usable(data); err != nil {
				return nil, nil, fmt.Errorf("%w: bucket %d of %s %w", boot.ErrState, i+1, s.Area, err)
			}
			r.valid[i] = true
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("bucket %d of %s %w", i+1, s.Area, err))
		case r.data == nil:
			r.data = data.data
		case !bytes.Equal(r.data, data.data):
			errs = append(errs, fmt.Errorf("bucket %d of %s differs from an earlier bucket, which barebox uses", i+1, s.Area))
		}
	}
	if r.data == nil {
		return nil, nil, fmt.Errorf("%w: %w; barebox uses the defaults of its device tree: restore the state in barebox",
			boot.ErrState, errors.Join(errs...))
	}
	var found []boot.Finding
	for _, err := range errs {
		found = append(found, boot.Warn(boot.RemedyRepair, "%v", err))
	}
	r.damaged = len(errs) > 0
	return r, found, nil
}

// content is the parsed content of a bucket with valid checksums.
type content struct {
	data   []byte
	legacy bool // without the bucket's own header
	more   bool // bytes follow the data
}

// bucket reads the bucket at off as barebox does (common/state/backend_bucket_direct.c and backend_format_raw.c), without
// its padding. A bucket without the magic of its own header begins with the state's.
func (s *store) bucket(off int64) (c content, err error) {
	le, end := binary.LittleEndian, s.Area.Size()-off
	head, err := s.read(off, min(bucketHead+rawHead, end))
	if err != nil {
		return c, err
	}
	at, size := int64(bucketHead), int64(le.Uint32(head[4:]))
	if le.Uint32(head) != bucketMagic {
		c.legacy, at, size = true, 0, s.Stride
	}
	if size = min(size, end-at); size < rawHead {
		return c, fmt.Errorf("has %d bytes, expected at least %d", size, rawHead)
	}
	h := head[at:][:rawHead]
	if want, got := le.Uint32(h[12:]), crc32.ChecksumIEEE(h[:12]); want != got {
		return c, fmt.Errorf("has header checksum %08x, expected %08x", want, got)
	}
	if got := le.Uint32(h); got != s.Magic {
		return c, fmt.Errorf("has state magic %08x, expected %08x", got, s.Magic)
	}
	n := int64(le.Uint16(h[6:]))
	if n > size-rawHead {
		return c, fmt.Errorf("declares %d bytes of data, but has %d", n, size-rawHead)
	}
	if c.data, err = s.read(off+at+rawHead, n); err != nil {
		return c, err
	}
	if want, got := le.Uint32(h[8:]), crc32.ChecksumIEEE(c.data); want != got {
		return c, fmt.Errorf("has data checksum %08x, expected %08x", want, got)
	}
	c.more = !c.legacy && size > rawHead+n
	return c, nil
}

func (s *store) read(off, n int64) ([]byte, error) {
	p := make([]byte, n)
	if got, err := s.Area.ReadBackAt(p, off); int64(got) < n {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	return p, nil
}

// usable refuses content that barebox reads but this package cannot write.
func (s *store) usable(c content) error {
	if c.legacy {
		return errors.New("has the format of an old barebox; save the state in barebox")
	}
	if c.more {
		return errors.New("is authenticated (HMAC); only barebox can write it")
	}
	if size := int64(bucketHead + rawHead + len(c.data)); size > s.Stride {
		return fmt.Errorf("needs %d bytes, more than the stride of %d", size, s.Stride)
	}
	for slot, t := range s.Targets {
		if max(t.Attempts, t.Priority)+4 > len(c.data) {
			return fmt.Errorf("has %d bytes of data; the variables of slot %s lie beyond them", len(c.data), slot)
		}
	}
	return nil
}

// Repair implements [scheme.Store].
func (s *store) Repair(string) error {
	rec, _, err := s.Load()
	if err != nil {
		return err
	}
	if r := rec.(*record); r.damaged {
		return r.write(r.data)
	}
	return nil
}

// Settle implements [scheme.Settler].
func (s *store) Settle(changed func(scheme.Record) bool) error {
	return scheme.SettleByRepair(s, changed)
}

type record struct {
	*store
	data    []byte
	valid   [buckets]bool
	damaged bool // not all buckets are valid and equal
}

// Entry implements [scheme.Record].
func (r *record) Entry(slot string) scheme.Entry {
	t, le := r.Targets[slot], binary.LittleEndian
	e := scheme.Entry{
		Priority: int(min(le.Uint32(r.data[t.Priority:]), 1<<20)), Tries: int(min(le.Uint32(r.data[t.Attempts:]), 1<<20)),
	}
	e.Good = e.Tries >= r.GoodTries
	return e
}

// Save implements [scheme.Record].
func (r *record) Save(t *scheme.Table) error {
	data := bytes.Clone(r.data)
	prio := scheme.Place(t, func(s string) int { return r.Entry(s).Priority }, 20)
	for _, s := range r.Slots {
		binary.LittleEndian.PutUint32(data[r.Targets[s].Priority:], uint32(prio[s]))
		binary.LittleEndian.PutUint32(data[r.Targets[s].Attempts:], uint32(t.Get(s).Tries))
	}
	if bytes.Equal(data, r.data) {
		return nil
	}
	return r.write(data)
}

// write writes the buckets one by one, invalid ones first: the only valid bucket is never overwritten.
func (r *record) write(data []byte) error {
	h, le := make([]byte, bucketHead+rawHead), binary.LittleEndian
	le.PutUint32(h, bucketMagic)
	le.PutUint32(h[4:], uint32(rawHead+len(data)))
	le.PutUint32(h[8:], r.Magic)
	le.PutUint16(h[14:], uint16(len(data)))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(data))
	le.PutUint32(h[20:], crc32.ChecksumIEEE(h[8:20]))
	b := append(h, data...)
	if r.Stride%boot.Sector == 0 { // whole sectors, which need not be read before
		b = append(b, make([]byte, (boot.Sector-len(b)%boot.Sector)%boot.Sector)...)
	}
	for _, valid := range []bool{false, true} {
		for i := range buckets {
			if r.valid[i] != valid {
				continue
			}
			if err := boot.WriteVerified(r.Area, b, int64(i)*r.Stride); err != nil {
				return err
			}
		}
	}
	return nil
}

// Recognize looks for three buckets at the beginning of r, whose stride is a power of two: the magic of their state, the stride, and the size of
// the data, in bytes.
func Recognize(r interface {
	ReadAt(p []byte, off int64) (int, error)
}) (magic uint32, stride int64, data int, ok bool) {
	var head [bucketHead + rawHead]byte
	same := func(at int64) bool {
		_, err := r.ReadAt(head[:], at)
		raw := head[bucketHead:]
		return err == nil && binary.LittleEndian.Uint32(head[:]) == bucketMagic && crc32.ChecksumIEEE(raw[:12]) == binary.LittleEndian.Uint32(raw[12:])
	}
	for stride = 32; stride <= 1<<20; stride *= 2 {
		if same(2*stride) && same(stride) && same(0) {
			return binary.LittleEndian.Uint32(head[bucketHead:]), stride, int(binary.LittleEndian.Uint16(head[bucketHead+6:])), true
		}
	}
	return 0, 0, 0, false
}
