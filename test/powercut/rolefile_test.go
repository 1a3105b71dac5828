package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"updater/blockdev"
	"updater/internal/crashdisk"
	"updater/state"
	"updater/update"
)

// Behind the slots of a device with several roles lie its state store, and the file system of a role that is a file: a folder with one
// entry a sector, as far apart as FAT may put them, and three extents. Nothing orders two changes of the folder before its sync.
const (
	storeAt   = diskSize
	storeSize = 8 << 10
	folderAt  = storeAt + storeSize
	extentsAt = folderAt + pageSize
	extents   = 3
	pageSize  = 4096

	fileRole   = "boot"
	extentSize = 32 << 10 // no role is larger
	moreSize   = storeSize + pageSize + extents*extentSize
)

// names are the files that the folder may have, in the order of their entries.
var names = []string{"A", "B", "A.new", "B.new"}

// found is the extent and content of a file on a disk; -1 if it is missing, or its entry is garbage.
func found(disk []byte, name string) (extent int, content []byte) {
	e := disk[folderAt+512*slices.Index(names, name):]
	extent, size := int(e[0])-1, binary.LittleEndian.Uint32(e[4:])
	if extent < 0 || extent >= extents || size > extentSize {
		return -1, nil
	}
	return extent, disk[extentsAt+extent*extentSize:][:size]
}

func packEntry(extent int, size int64) []byte {
	e := make([]byte, 512)
	e[0] = byte(extent + 1)
	binary.LittleEndian.PutUint32(e[4:], uint32(size))
	return e
}

// fill gives a slot its first file.
func fill(disk []byte, slot string, content []byte) {
	i := slices.Index(names, slot)
	copy(disk[folderAt+512*i:], packEntry(i, int64(len(content))))
	copy(disk[extentsAt+i*extentSize:], content)
}

// roleFile is a role that is a file. It implements update.FileTarget.
type roleFile struct {
	update.Target
	d      *device
	name   string
	folder *blockdev.Device // its own page cache
	node   *crashdisk.Node  // of the content
	extent int
	size   int64
}

func (d *device) roleFile(slot string) *roleFile {
	return &roleFile{d: d, name: slot, node: d.disk.Node(), folder: d.disk.Node().Device("folder", folderAt, pageSize)}
}

// write changes the entry of a name. It is durable after the folder's sync.
func (f *roleFile) write(name string, extent int, size int64) error {
	_, err := f.folder.WriteAt(packEntry(extent, size), int64(512*slices.Index(names, name)))
	return err
}

// Reserve implements update.FileTarget: an unfinished file is continued, else a free extent is allocated.
func (f *roleFile) Reserve(size int64) error {
	disk := f.d.disk.Medium()
	f.size = size
	if f.extent, _ = found(disk, f.name+".new"); f.extent < 0 {
		used := map[int]bool{}
		for _, name := range names {
			extent, _ := found(disk, name)
			used[extent] = true
		}
		for f.extent = 0; used[f.extent]; f.extent++ {
		}
	}
	if err := errorsFirst(f.write(f.name+".new", f.extent, size), f.folder.Sync); err != nil {
		return err
	}
	return f.open()
}

// Named implements update.FileTarget.
func (f *roleFile) Named(size int64) error {
	var content []byte
	f.extent, content = found(f.d.disk.Medium(), f.name)
	if f.size = size; f.extent < 0 || int64(len(content)) != size {
		return fmt.Errorf("file %s has %d bytes, expected %d", f.name, len(content), size)
	}
	return f.open()
}

func (f *roleFile) open() error {
	files := f.node.Files(int64(extentsAt+f.extent*extentSize), f.size)
	files.Chunk, files.Zeroing = f.d.files.Chunk, f.d.files.Zeroing
	if f.d.hooks.files != nil {
		files = f.d.hooks.files(files)
	}
	w, err := blockdev.New("file "+f.name, files).NewWriter(f.d.w)
	if f.Target = w; err == nil && f.d.hooks.file != nil {
		f.Target = f.d.hooks.file(f, w)
	} else if err == nil && f.d.hooks.target != nil {
		f.Target = f.d.hooks.target(w)
	}
	return err
}

// Commit implements update.FileTarget.
func (f *roleFile) Commit() error {
	err := errors.Join(f.write(f.name, f.extent, f.size), f.write(f.name+".new", -1, 0))
	if f.d.hooks.unsynced {
		return err
	}
	return errorsFirst(err, f.folder.Sync)
}

func (f *roleFile) Close() error {
	if f.Target == nil {
		return nil
	}
	return f.Target.Close()
}

// memory is the state store of a device. It implements update.State.
type memory struct {
	*state.Store
	roles []string
}

func (d *device) memory() (memory, error) {
	store, err := state.Open(d.disk.Node().Device("state store", storeAt, storeSize), state.State{})
	return memory{store, roleNames[:d.roles]}, err
}

func (m memory) Floor() int64 { return m.State().Floor }

func (m memory) Release(slot string) update.Record {
	s := m.State()
	if len(s.Slots[slot]) == 0 || s.OneRelease(slot, m.roles) != nil {
		return update.Record{}
	}
	image := s.Slots[slot][m.roles[0]]
	r := update.Record{Slot: slot, Release: image.Release, RollbackIndex: image.RollbackIndex, Outcome: update.OutcomeInstalled}
	if !image.Result.Whole() {
		r.Outcome = update.OutcomeBad
	}
	return r
}

func (m memory) Record(records ...update.Record) error {
	return m.Update(func(s *state.State) {
		for _, r := range records {
			s.Put(r.Slot, r.Role, state.Image{Release: r.Release, RollbackIndex: r.RollbackIndex, Result: state.Result(r.Outcome)}, "")
		}
	})
}

// good marks the slot good in the state store, under the one check of the device.
func (m memory) good(slot string, roles []string) error {
	s := m.State()
	if err := s.OneRelease(slot, roles); err != nil {
		return err
	}
	return m.Update(func(s *state.State) { s.MarkGood(slot, time.Time{}) })
}

// medium is the state store of a crash state. It implements state.Area for reading.
type medium []byte

func (m medium) WriteAt([]byte, int64) (int, error)          { return 0, errors.ErrUnsupported }
func (m medium) ReadBackAt(p []byte, off int64) (int, error) { return copy(p, m[off:]), nil }
func (m medium) Size() int64                                 { return int64(len(m)) }
func (m medium) Sync() error                                 { return errors.ErrUnsupported }
func (m medium) String() string                              { return "state store" }

// remembered is the invariant of the state store: a slot that it records as one whole release holds that release, and the floor allows
// the boot loader's choice.
func (d *device) remembered(disk []byte, choice string) error {
	area := disk[storeAt:][:storeSize]
	known, ok := d.stores[string(area)]
	if !ok {
		store, err := state.Open(medium(bytes.Clone(area)), state.State{})
		if err != nil {
			return err
		}
		known = store.State()
		d.stores[string(area)] = known
	}
	for slot, records := range known.Slots {
		if err := known.OneRelease(slot, roleNames[:d.roles]); err != nil {
			continue
		}
		if img := d.image(d.holds(disk, slot)); img == nil || img.sets[d.roles].identity != records[fileRole].Release {
			return fmt.Errorf("slot %s is recorded as whole, and does not hold that release", slot)
		}
	}
	if img := d.image(d.holds(disk, choice)); img != nil && img.index < known.Floor {
		return fmt.Errorf("the floor is %d, and the boot loader chooses slot %s with index %d", known.Floor, choice, img.index)
	}
	return nil
}

// image is the image of a name, nil for none.
func (d *device) image(name string) *image {
	i := slices.IndexFunc(d.images, func(img *image) bool { return img.name == name })
	if i < 0 {
		return nil
	}
	return d.images[i]
}
