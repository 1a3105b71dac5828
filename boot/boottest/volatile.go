package boottest

import (
	"fmt"
	"slices"
	"testing"

	"updater/internal/crashdisk"
)

// page is what the system's cache writes out: every area begins one.
const page = 4096

// volatileDisk plays the steps on a disk with a page cache and a volatile write cache, through the device that
// writes on real disks, and cuts the power in every way that [crashdisk.Disk.Crashes] knows.
func (r Rig) volatileDisk(t *testing.T) {
	d, states := r.Fresh(t), 0
	if len(d.Areas) == 0 {
		t.Skip("this loader's state is not in areas")
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
		disk, m := crashdisk.New(content, crashdisk.Options{Seed: 1}), New(d)
		for i, a := range d.Areas {
			m.devices = append(m.devices, disk.Device(fmt.Sprintf("area %d", i+1), int64(at[i]), int64(len(a))))
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
		n, err := disk.Crashes(crashdisk.Plan{}, func(st *crashdisk.State) error {
			if got := r.boots(read(st.Image), 1)[0]; !slices.Contains(s.may, got) || got != old && got != done {
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
