//go:build vm

package recovery

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/boot/grub"
	"updater/internal/abdisk"
	"updater/internal/crashdisk"
)

const (
	sector  = 512
	envSize = 1024
)

// medium is the content of a recorded disk: the flushed bytes, and the writes that a power cut may lose or keep, sector by
// sector. Only the regions that may be written are kept; a write elsewhere is an error.
type medium struct {
	regions          []*region // the pages of the environment block first
	env              int64     // its offset in them
	chains           map[string][]string
	sectors, entries int
}

// region is a part of the disk. A slot's has images: it is complete for every selection of the open sectors when
// neither a flushed nor an open sector differs from the same image.
type region struct {
	name   string
	off    int64
	have   []byte // flushed
	open   []openSector
	images []*candidate
}

type openSector struct {
	at   int64 // in the region
	data []byte
}

// candidate is an image that a slot may hold, with the number of sectors, flushed and open, that differ from it.
type candidate struct {
	data               []byte
	flushed, unflushed int
}

func (c *candidate) differs(at int64, data []byte) int {
	if at >= int64(len(c.data)) || bytes.Equal(c.data[at:at+sector], data) {
		return 0
	}
	return 1
}

// newMedium reads the environment block and as much of each slot as its largest image has.
func newMedium(t *testing.T, disk string, images map[string][]string) *medium {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := func(off, n int64) []byte {
		data := make([]byte, n)
		if _, err := f.ReadAt(data, off); err != nil {
			t.Fatal(err)
		}
		return data
	}
	m := &medium{chains: map[string][]string{}}
	startA, _ := abdisk.SlotRange("A")
	esp, magic := read(0, startA), []byte("# GRUB Environment Block\n")
	for off := int64(0); off < startA; off += sector {
		if bytes.HasPrefix(esp[off:], magic) {
			page, end := off&^4095, (off+envSize+4095)&^4095
			m.env = off - page
			m.regions = append(m.regions, &region{name: "the environment block", off: page, have: slices.Clone(esp[page:end])})
		}
	}
	if len(m.regions) != 1 {
		t.Fatalf("%d environment blocks on the disk; want one", len(m.regions))
	}
	for _, slot := range []string{"A", "B"} {
		r := &region{name: slot}
		for _, path := range images[slot] {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r.images = append(r.images, &candidate{data: data})
		}
		largest := slices.MaxFunc(r.images, func(a, b *candidate) int { return len(a.data) - len(b.data) })
		r.off, _ = abdisk.SlotRange(slot)
		r.have = read(r.off, int64(len(largest.data)))
		for at := int64(0); at < int64(len(r.have)); at += sector {
			for _, c := range r.images {
				c.flushed += c.differs(at, r.have[at:at+sector])
			}
		}
		m.regions = append(m.regions, r)
	}
	return m
}

// replay carries the logs out and looks at every state; spoil may change an entry before.
func (m *medium) replay(t *testing.T, chapters []chapter, spoil func(*crashdisk.LogEntry)) error {
	t.Helper()
	for _, c := range chapters {
		log, err := os.ReadFile(c.log)
		if err != nil {
			t.Fatal(err)
		}
		n, err := crashdisk.ReadLog(log, func(e crashdisk.LogEntry) error {
			if spoil != nil {
				spoil(&e)
			}
			return m.entry(e)
		})
		m.entries += n
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for _, env := range m.envs() {
			if chain := m.chains[env]; chain[0] != c.next {
				return fmt.Errorf("%s: a power cut at its end boots %q; want %s first", c.name, chain, c.next)
			}
		}
	}
	return nil
}

func (m *medium) entry(e crashdisk.LogEntry) error {
	if e.FUA {
		return fmt.Errorf("a write at %d is FUA, which is not modelled", e.Off)
	}
	if e.Flush {
		m.flush()
	}
	if e.Discard {
		e.Data = make([]byte, e.Len)
	}
	if e.Len == 0 {
		return m.check()
	}
	i := slices.IndexFunc(m.regions, func(r *region) bool { return e.Off >= r.off && e.Off+e.Len <= r.off+int64(len(r.have)) })
	if i < 0 {
		return fmt.Errorf("%d bytes at %d are written, outside the environment block and the images", e.Len, e.Off)
	}
	r := m.regions[i]
	for at := int64(0); at < e.Len; at += sector {
		s := openSector{e.Off - r.off + at, e.Data[at : at+sector]}
		if i == 0 && (s.at < m.env || s.at >= m.env+envSize) && !bytes.Equal(s.data, r.have[s.at:s.at+sector]) {
			return fmt.Errorf("the sector at %d, beside the environment block, is changed", r.off+s.at)
		}
		r.open = append(r.open, s)
		for _, c := range r.images {
			c.unflushed += c.differs(s.at, s.data)
		}
		m.sectors++
		if err := m.check(); err != nil {
			return fmt.Errorf("%s, sector at %d: %w", r.name, s.at, err)
		}
	}
	return nil
}

func (m *medium) flush() {
	for _, r := range m.regions {
		for _, s := range r.open {
			for _, c := range r.images {
				c.flushed += c.differs(s.at, s.data) - c.differs(s.at, r.have[s.at:s.at+sector])
			}
			copy(r.have[s.at:], s.data)
		}
		for _, c := range r.images {
			c.unflushed = 0
		}
		r.open = nil
	}
}

// check looks at every state that a power cut now may leave: for every environment block, every slot that GRUB would
// choose is complete, for every selection of the unflushed sectors; if only the recovery is left, it finds one.
func (m *medium) check() error {
	for _, env := range m.envs() {
		chain, ok := m.chains[env]
		if !ok {
			var err error
			if chain, err = grubChain(env); err != nil {
				return err
			}
			m.chains[env] = chain
		}
		for _, slot := range chain {
			switch {
			case slot == "" && !m.regions[1].complete() && !m.regions[2].complete():
				return fmt.Errorf("GRUB boots %q, and the recovery finds no complete slot", chain)
			case slot != "" && !m.regions[1+strings.Index("AB", slot)].complete():
				return fmt.Errorf("GRUB boots %q, and slot %s is not complete", chain, slot)
			}
		}
	}
	return nil
}

func (r *region) complete() bool {
	return slices.ContainsFunc(r.images, func(c *candidate) bool { return c.flushed+c.unflushed == 0 })
}

// envs are the environment blocks that a power cut may leave: each sector as flushed or as any open write left it.
func (m *medium) envs() []string {
	r := m.regions[0]
	list := []string{string(r.have[m.env : m.env+envSize])}
	for _, s := range r.open {
		at := s.at - m.env
		if at < 0 || at >= envSize {
			continue
		}
		for _, env := range slices.Clone(list) {
			if next := env[:at] + string(s.data) + env[at+sector:]; !slices.Contains(list, next) {
				list = append(list, next)
			}
		}
	}
	return list
}

// grubChain returns the slots that the demo's grub.cfg boots in turn when no system ever comes up, with "" for the recovery at the end.
// The backend must read the same.
func grubChain(env string) ([]string, error) {
	b, err := grub.New(grub.Options{Area: boottest.NewMedium([]byte(env)).Areas()[0], Slots: []string{"A", "B"}}, "")
	if err != nil {
		return nil, err
	}
	st, err := b.State(context.Background())
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	for line := range strings.Lines(env) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			vars[k] = v
		}
	}
	var chain []string
	for s := range strings.FieldsSeq(vars["ORDER"]) {
		if vars[s+"_OK"] == "1" && vars[s+"_TRY"] == "0" {
			chain = append(chain, s)
		}
	}
	if chain = append(chain, ""); st.Next != chain[0] {
		return nil, fmt.Errorf("GRUB boots %q, the backend says %q", chain, st.Next)
	}
	return chain, nil
}
