package boottest

import (
	"fmt"
	"slices"
	"testing"

	"updater/boot"
)

// page is the unit in which the page cache writes back: every area begins on one.
const page = 4096

// VolatileDisk is a disk with a page cache and a volatile write cache.
type VolatileDisk interface {
	// Area opens a window of the disk, in bytes.
	Area(name string, off, size int64) boot.Area
	// Medium is the content of the disk once both caches are written back.
	Medium() []byte
	// Crashes calls check with every content that a power cut can leave, and returns their number. It stops at
	// the first error. The image is only valid during the call.
	Crashes(check func(image []byte) error) (int, error)
}

// volatileDisk runs the steps on a disk with volatile caches and cuts the power in every way the disk models.
func (r Rig) volatileDisk(t *testing.T) {
	d, states := r.Fresh(t), 0
	if len(d.Areas) == 0 {
		t.Skip("this boot loader keeps no state in areas")
	}
	if r.Volatile == nil {
		t.Fatal("Rig.Volatile is missing")
	}
	for _, s := range r.steps() {
		if s.before != nil {
			s.before(&d)
		}
		var content []byte
		var at []int
		for _, a := range d.Areas {
			at = append(at, len(content))
			content = append(content, a...)
			content = append(content, make([]byte, (page-len(content)%page)%page)...)
		}
		disk, m := r.Volatile(content), New(d)
		for i, a := range d.Areas {
			m.devices = append(m.devices, disk.Area(fmt.Sprintf("area %d", i+1), int64(at[i]), int64(len(a))))
		}
		read := func(image []byte) Disk {
			now := m.Disk()
			for i, a := range now.Areas {
				copy(a, image[at[i]:])
			}
			return now
		}
		old := r.boots(d, 1)[0]
		if err := s.do(t, r.open(t, m, s.booted)); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		after := read(disk.Medium())
		done := r.boots(after, 1)[0]
		n, err := disk.Crashes(func(image []byte) error {
			if got := r.boots(read(image), 1)[0]; !slices.Contains(s.may, got) || got != old && got != done {
				return fmt.Errorf("%s: the boot loader chooses %q; want %q or %q of %v", s.name, got, old, done, s.may)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		states, d = states+n, after
	}
	t.Logf("%d states after power cuts", states)
}
