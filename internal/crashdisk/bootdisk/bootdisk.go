// Package bootdisk runs the contract suite of the boot backends on a crash disk: the real block device code, the
// kernel's page cache and a drive with a volatile write cache.
package bootdisk

import (
	"updater/boot"
	"updater/boot/boottest"
	"updater/internal/crashdisk"
)

type disk struct{ *crashdisk.Disk }

// New returns a disk with this content. It is a value for [boottest.Rig.Volatile].
func New(content []byte) boottest.VolatileDisk {
	return disk{crashdisk.New(content, crashdisk.Options{Seed: 1})}
}

// Area implements [boottest.VolatileDisk].
func (d disk) Area(name string, off, size int64) boot.Area { return d.Device(name, off, size) }

// Crashes implements [boottest.VolatileDisk].
func (d disk) Crashes(check func(image []byte) error) (int, error) {
	return d.Disk.Crashes(crashdisk.Plan{}, func(st *crashdisk.State) error { return check(st.Image) })
}
