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

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	raw, err := boot.ReadAll(s.Area)
	if err != nil {
		return nil, nil, err
	}
	r := &record{store: s, raw: raw}
	var errs []error
	for i := range buckets {
		data, err := s.bucket(raw[int64(i)*s.Stride:][:s.Stride])
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("bucket %d of %s %w", i+1, s.Area, err))
		case r.data == nil:
			r.data = data
		case !bytes.Equal(r.data, data):
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

// bucket validates a bucket and returns its data.
func (s *store) bucket(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	if got := le.Uint32(b); got != bucketMagic {
		return nil, fmt.Errorf("has magic %08x, expected %08x", got, uint32(bucketMagic))
	}
	size := int64(le.Uint32(b[4:]))
	if size < rawHead || size > int64(len(b))-bucketHead {
		return nil, fmt.Errorf("has %d bytes, expected %d to %d", size, rawHead, len(b)-bucketHead)
	}
	h, data := b[bucketHead:][:rawHead], b[bucketHead+rawHead:][:size-rawHead]
	if got := le.Uint32(h); got != s.Magic {
		return nil, fmt.Errorf("has state magic %08x, expected %08x", got, s.Magic)
	}
	if want, got := le.Uint32(h[12:]), crc32.ChecksumIEEE(h[:12]); want != got {
		return nil, fmt.Errorf("has header checksum %08x, expected %08x", want, got)
	}
	n := int64(le.Uint16(h[6:]))
	if n > int64(len(data)) {
		return nil, fmt.Errorf("declares %d bytes of data, but has %d", n, len(data))
	}
	data = data[:n]
	if want, got := le.Uint32(h[8:]), crc32.ChecksumIEEE(data); want != got {
		return nil, fmt.Errorf("has data checksum %08x, expected %08x", want, got)
	}
	if size > rawHead+n {
		return nil, errors.New("is authenticated (HMAC); only barebox can write it")
	}
	for slot, t := range s.Targets {
		if int64(max(t.Attempts, t.Priority))+4 > n {
			return nil, fmt.Errorf("has %d bytes of data; the variables of slot %s lie beyond them", n, slot)
		}
	}
	return data, nil
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

type record struct {
	*store
	raw     []byte
	data    []byte
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
	order := []int{}
	for _, whole := range []bool{false, true} {
		for i := range buckets {
			if _, err := r.bucket(r.raw[int64(i)*r.Stride:][:r.Stride]); (err == nil) == whole {
				order = append(order, i)
			}
		}
	}
	for _, i := range order {
		if err := boot.WriteVerified(r.Area, b, int64(i)*r.Stride); err != nil {
			return err
		}
	}
	return nil
}
