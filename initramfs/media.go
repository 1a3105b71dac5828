package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Update is an update on a mounted medium. None of its files was verified.
type Update struct {
	Device    string // that holds it
	Image     string // paths
	Bmap      string
	Signature string // "" when the bmap may be clearsigned
}

const mediaDir = "/run/updater/media"

// mediaTypes are the file systems that a medium may have.
var mediaTypes = []string{"vfat", "exfat", "ext4", "iso9660"}

// medium is a block device that holds the folder updater/, or is labelled [UpdateLabel].
type medium struct {
	Block
	update *Update // mounted; nil when err says why there is none
	err    error
}

// media looks at every block device that is not on the device's own disk, and hands those that hold an
// update, or that should but do not hold exactly one, to use while they are mounted: read-only, without
// devices, programs and set-user-id files. It stops when use returns true.
func (r *runner) media(own string, use func(m medium) (stop bool)) error {
	if err := os.MkdirAll(mediaDir, 0o755); err != nil {
		return err
	}
	for _, fs := range mediaTypes {
		r.loader.plug("fs-" + fs)
	}
	blocks, err := Blocks()
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if b.Disk == own || holdsPartitions(blocks, b) {
			continue
		}
		if r.lookInto(b, use) {
			return nil
		}
	}
	return nil
}

// holdsPartitions reports whether a disk has partitions, which are looked at instead. A hybrid ISO image is
// both; its first partition is the file system.
func holdsPartitions(blocks []Block, b Block) bool {
	return b.Node == b.Disk && slices.ContainsFunc(blocks, func(o Block) bool { return o.Disk == b.Node && o.Node != b.Node }) &&
		!strings.HasPrefix(b.Node, "/dev/sr")
}

// lookInto mounts a block device and looks for an update.
func (r *runner) lookInto(b Block, use func(m medium) (stop bool)) (stop bool) {
	m := medium{Block: b}
	label := volumeLabel(b.Node)
	err := mount(b.Node)
	switch {
	case err != nil && label == UpdateLabel:
		m.err = fmt.Errorf("update medium %s: its file system cannot be mounted, so it is damaged or of an unknown kind: %w", b.Node, err)
		return use(m)
	case err != nil:
		return false // not for us
	}
	defer func() {
		if err := unmount(b.Node); err != nil {
			r.log("%v", err)
		}
	}()
	if m.update, m.err = pick(mediaDir, label == UpdateLabel); m.update == nil && m.err == nil {
		return false
	}
	if m.err != nil {
		m.err = fmt.Errorf("update medium %s: %w", b.Node, m.err)
	} else {
		m.update.Device = b.Node
	}
	return use(m)
}

// mount mounts a medium. The error is that of the file system which knew it, else the last one.
func mount(node string) error {
	var first error
	for _, fs := range mediaTypes {
		flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		data := ""
		if fs == "ext4" {
			data = "noload" // a medium is not changed, its journal not replayed
		}
		err := unix.Mount(node, mediaDir, fs, flags, data)
		if err == nil {
			return nil
		}
		// EINVAL: not this kind; ENODEV: a kind that this kernel does not have.
		if first == nil || errors.Is(first, unix.EINVAL) || errors.Is(first, unix.ENODEV) {
			first = err
		}
	}
	return first
}

func unmount(node string) error {
	err := unix.Unmount(mediaDir, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(mediaDir, unix.MNT_DETACH) // or no other medium could be mounted
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", node, err)
	}
	return nil
}

// endings are the names that an image may have beside its bmap.
var endings = []string{"", ".zst", ".xz", ".gz", ".lz4", ".bz2"}

// pick finds the one update in the folder updater/ of a medium, or in its top folder when the label says so;
// nil, nil when there is no such folder.
func pick(root string, labelled bool) (*Update, error) {
	dir, name := filepath.Join(root, "updater"), "updater/"
	if info, err := os.Lstat(dir); (err != nil || !info.IsDir()) && labelled {
		dir, name = root, "the top folder"
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var bmaps []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".bmap") && e.Type().IsRegular() {
			bmaps = append(bmaps, e.Name())
		}
	}
	if len(bmaps) != 1 {
		return nil, fmt.Errorf("%s has %d bmaps (%s), expected one", name, len(bmaps), strings.Join(bmaps, ", "))
	}
	u := &Update{Bmap: filepath.Join(dir, bmaps[0])}
	base := strings.TrimSuffix(u.Bmap, ".bmap")
	for _, name := range []string{base, strings.TrimSuffix(base, ".img") + ".img"} {
		for _, ext := range endings {
			if info, err := os.Lstat(name + ext); err == nil && info.Mode().IsRegular() && u.Image == "" {
				u.Image = name + ext
			}
		}
	}
	if u.Image == "" {
		return nil, fmt.Errorf("%s has %s but not its image, such as %s or %s.zst", name, bmaps[0], filepath.Base(base), filepath.Base(base))
	}
	for _, ext := range []string{".asc", ".sig"} {
		if info, err := os.Lstat(u.Bmap + ext); err == nil && info.Mode().IsRegular() && u.Signature == "" {
			u.Signature = u.Bmap + ext
		}
	}
	return u, nil
}
