package device

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/device/config"
	"updater/update"
)

// roleFile is a role that is a file, written beside its name. It implements update.FileTarget. A file that an interrupted install left
// is reused: only ranges that differ are written.
type roleFile struct {
	*blockdev.Writer // nil before Reserve
	d                *Device
	place            config.Place
	vol              *filesystem
}

// openRoleFile opens the file system of a file role for writing.
func (d *Device) openRoleFile(slot, role string, p config.Place) (update.Target, error) {
	if err := d.checkPlace(slot, role, p); err != nil {
		return nil, err
	}
	vol, err := d.filesystem(p, blockdev.Exclusive)
	if err != nil {
		return nil, err
	}
	return &roleFile{d: d, place: p, vol: vol}, nil
}

// Reserve implements update.FileTarget.
func (f *roleFile) Reserve(size int64) (err error) {
	if err := f.vol.confine(f.place.Path); err != nil {
		return fmt.Errorf("%s: %w", f.place, err)
	}
	temp := f.place.Path + config.Beside
	if err := f.vol.reserve(temp, size); errors.Is(err, unix.ENOSPC) {
		return &update.IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit beside %s: %v", size, f.place, err)}
	} else if err != nil {
		return fmt.Errorf("taking room for %s: %w", f.place, err)
	}
	return f.open(temp, size, blockdev.Exclusive)
}

// Named implements update.FileTarget.
func (f *roleFile) Named(size int64) error {
	if err := f.vol.confine(f.place.Path); err != nil {
		return fmt.Errorf("%s: %w", f.place, err)
	}
	return f.open(f.place.Path, size, blockdev.ReadOnly)
}

// open opens a file of size bytes.
func (f *roleFile) open(name string, size int64, mode blockdev.Mode) error {
	dev, err := blockdev.OpenPath(f.vol.name(name), 0, 0, mode)
	if err != nil {
		return err
	}
	if dev.Size() != size {
		return errors.Join(fmt.Errorf("%s has %d bytes, expected %d", dev, dev.Size(), size), dev.Close())
	}
	if f.Writer, err = dev.NewWriter(blockdev.WriterOptions{Engine: f.d.Config.Disk.Engine}); err != nil {
		return errors.Join(err, dev.Close())
	}
	if f.d.Opened != nil {
		f.d.Opened(dev.Facts())
	}
	return nil
}

// Commit implements update.FileTarget. The content is on stable storage and was read back. On FAT the rename is not atomic under a power
// cut; the slot is invalid meanwhile.
func (f *roleFile) Commit() error {
	if err := f.vol.root.Rename(f.place.Path+config.Beside, f.place.Path); err != nil {
		return err
	}
	return syncFS(filepath.Dir(f.vol.name(f.place.Path)))
}

// Close releases the file and its file system. A file without a name stays for the next install.
func (f *roleFile) Close() error {
	var err error
	if f.Writer != nil {
		err = f.Writer.Close()
	}
	return errors.Join(err, f.vol.close())
}

// heldFile is the file of a role that a slot holds, open for reading.
type heldFile struct {
	*blockdev.Device
	vol *filesystem
}

func (h heldFile) Close() error { return errors.Join(h.Device.Close(), h.vol.close()) }

// openHeldFile opens the file of a role for reading.
func (d *Device) openHeldFile(p config.Place) (_ heldFile, err error) {
	vol, err := d.filesystem(p, blockdev.ReadOnly)
	if err != nil {
		return heldFile{}, err
	}
	var dev *blockdev.Device
	if err = vol.confine(p.Path); err == nil {
		dev, err = blockdev.OpenPath(vol.name(p.Path), 0, 0, blockdev.ReadOnly)
	}
	if err != nil {
		return heldFile{}, errors.Join(fmt.Errorf("%s: %w", p, err), vol.close())
	}
	return heldFile{dev, vol}, nil
}

// ReadPlace reads a small file of a partition of the disk, of at most limit bytes.
func (d *Device) ReadPlace(p config.Place, limit int64) (data []byte, err error) {
	f, err := d.openHeldFile(p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if f.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, expected at most %d", p, f.Size(), limit)
	}
	data = make([]byte, f.Size())
	_, err = f.ReadAt(data, 0)
	return data, err
}

// maxFATFile is the longest file on FAT, in bytes.
const maxFATFile = math.MaxUint32

// fileRoom is how long a file role may become: the free space plus the size of an unfinished file.
func (d *Device) fileRoom(slot, role string, p config.Place) (room int64, err error) {
	if err := d.checkPlace(slot, role, p); err != nil {
		return 0, err
	}
	vol, err := d.filesystem(p, blockdev.ReadOnly)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, vol.close()) }()
	var st unix.Statfs_t
	if err := unix.Statfs(vol.dir, &st); err != nil {
		return 0, fmt.Errorf("determining the free space for %s: %w", p, err)
	}
	room = int64(st.Bavail) * int64(st.Bsize)
	if info, err := vol.root.Lstat(p.Path + config.Beside); err == nil && info.Mode().IsRegular() {
		room += info.Size()
	}
	if st.Type == unix.MSDOS_SUPER_MAGIC {
		room = min(room, maxFATFile)
	}
	return room, nil
}

// filesystem is an open file system of file roles. Nothing outside of it is reached through root.
type filesystem struct {
	root  *os.Root
	dir   string
	close func() error
}

func (f *filesystem) name(path string) string { return filepath.Join(f.dir, path) }

// filesystem opens the file system of a place: at its mount point, or mounted for as long as it is in use.
func (d *Device) filesystem(p config.Place, mode blockdev.Mode) (*filesystem, error) {
	dir, release, err := d.mountPoint(p, mode)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the file system of %s: %w", p, err), release())
	}
	return &filesystem{root: root, dir: dir, close: func() error { return errors.Join(root.Close(), release()) }}, nil
}

// mounting is a file system that this program mounted for file roles.
type mounting struct {
	dir     string
	users   int
	unmount func() error
}

// mountPoint finds the mount point of a place, or mounts its partition.
func (d *Device) mountPoint(p config.Place, mode blockdev.Mode) (dir string, release func() error, err error) {
	if p.Mounted() {
		if outer, inner := deviceOf(filepath.Dir(p.FS)), deviceOf(p.FS); !d.disk.IsFile() && (outer == inner || inner == 0) {
			return "", nil, config.Requestf("files: nothing is mounted at %s; mount it, or name its partition: PARTLABEL=NAME:/%s", p.FS, p.Path)
		}
		return p.FS, func() error { return nil }, nil
	}
	part, err := d.find("files", p.FS)
	if err != nil {
		return "", nil, err
	}
	if part.Path == d.disk.Path() { // it has no node to mount
		return "", nil, config.Requestf("files: %s is inside a disk image file, which is not mounted; attach the image with losetup -P and name that disk", p)
	}
	return d.mountShared(part, mode)
}

// mountShared mounts a partition until release is called by every user, unless it is mounted already.
func (d *Device) mountShared(part blockdev.Partition, mode blockdev.Mode) (dir string, release func() error, err error) {
	m := d.mounts[part.Path]
	if m == nil {
		if dir, err := blockdev.MountPoint(part.Path); err != nil || dir != "" {
			return dir, func() error { return nil }, err
		}
		kind := "vfat"
		if ext, err := isExt(part); err != nil {
			return "", nil, err
		} else if ext {
			kind = "ext4"
		}
		m = new(mounting)
		if m.dir, m.unmount, err = mountAt(part, kind, "files-"+filepath.Base(part.Path), mode); err != nil {
			return "", nil, err
		}
		if d.mounts == nil {
			d.mounts = map[string]*mounting{}
		}
		d.mounts[part.Path] = m
	}
	m.users++
	return m.dir, func() error {
		if m.users--; m.users > 0 {
			return nil
		}
		delete(d.mounts, part.Path)
		return m.unmount()
	}, nil
}

// deviceOf is the number of the device that a path lies on, 0 if there is none.
func deviceOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Dev
}

// confine refuses a path that leaves the file system, by links or mounts, and anything but a regular file at its end.
func (f *filesystem) confine(name string) error {
	for at, rest := "", name; rest != ""; {
		var first string
		first, rest, _ = strings.Cut(rest, "/")
		at = path.Join(at, first)
		info, err := f.root.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if last := rest == ""; last && !info.Mode().IsRegular() || !last && !info.IsDir() {
			return fmt.Errorf("/%s is neither a directory on the way nor a regular file at the end: %s", at, info.Mode())
		}
		if deviceOf(f.name(at)) != deviceOf(f.dir) {
			return fmt.Errorf("/%s is on another file system", at)
		}
	}
	return nil
}

// reserve creates a file of size bytes, or resizes it, and allocates its blocks, durably. It keeps the content.
func (f *filesystem) reserve(name string, size int64) error {
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	var st unix.Stat_t
	if unix.Lstat(f.name(name), &st) == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1) { // a link to another file
		if err := f.root.Remove(name); err != nil {
			return err
		}
	}
	file, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && info.Size() > size {
		err = file.Truncate(size)
	}
	if err == nil {
		err = unix.Fallocate(int(file.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = file.Truncate(size)
	}
	if err == nil {
		err = file.Sync()
	}
	if errors.Is(err, unix.ENOSPC) { // give back the allocated blocks
		err = errors.Join(err, file.Truncate(0))
	}
	return err
}

// checkPlace refuses a file that is another role's or another slot's, the boot loader's or the state store, by whatever name.
func (d *Device) checkPlace(slot, role string, p config.Place) error {
	own, err := d.fileKey(p.String())
	if err != nil {
		return err
	}
	taken := ownedBy(d.Config, slot)
	for _, s := range d.Config.Slot {
		for r := range s.Files {
			if other, ok := d.Config.FileRole(s.Name, r); ok && (s.Name != slot || r != role) {
				taken = append(taken, other.String())
			}
		}
	}
	for _, other := range taken {
		key, err := d.fileKey(other)
		if err == nil && (own == key || strings.HasPrefix(own, key+"/")) {
			return config.Requestf("slot %s: role %s is the file %s, which belongs to %s", slot, role, p, other)
		}
	}
	return nil
}

// ownedBy lists the files and folders that no file role of a slot may be, as FS:/PATH or absolute paths.
func ownedBy(c *config.Config, slot string) []string {
	list := []string{c.State.Device, c.Boot.Env.File}
	for _, a := range c.Boot.Env.Areas {
		list = append(list, a.Device)
	}
	if owns := backends[c.Boot.Backend].owns; owns != nil {
		for _, path := range owns(c, slot) {
			list = append(list, c.Boot.ESP+":/"+path)
		}
	}
	return slices.DeleteFunc(list, func(s string) bool {
		return !strings.Contains(s, ":/") && (!filepath.IsAbs(s) || strings.HasPrefix(s, "/dev/"))
	})
}

// fileKey names a file by the number of its device and its path there, in lower case, whether it is mounted or not.
func (d *Device) fileKey(name string) (string, error) {
	spec, path, found := strings.Cut(name, ":/")
	if p := (config.Place{FS: spec, Path: path}); found && !p.Mounted() {
		part, err := d.find("files", spec)
		if err != nil {
			return "", err
		}
		var st unix.Stat_t
		if err := unix.Stat(part.Path, &st); err != nil {
			return "", &os.PathError{Op: "stat", Path: part.Path, Err: err}
		}
		return strings.ToLower(fmt.Sprintf("%d/%s", st.Rdev, path)), nil
	}
	name = filepath.Join("/", spec, path)
	dir, rest := name, ""
	for deviceOf(dir) == 0 && dir != "/" { // it need not exist yet
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	number := deviceOf(dir)
	for up := filepath.Dir(dir); dir != "/" && deviceOf(up) == number; up = filepath.Dir(dir) {
		dir, rest = up, filepath.Join(filepath.Base(dir), rest)
	}
	return strings.ToLower(fmt.Sprintf("%d/%s", number, rest)), nil
}
