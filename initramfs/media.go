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

// Update is an unverified update on a mounted medium. The paths name regular files.
type Update struct {
	Device    string // node of the block device
	Image     string // path; release.toml for a release, whose other paths are empty
	Bmap      string // path
	Signature string // path; "" if there is none and the bmap has to be clearsigned
}

const mediaDir = "/run/updater/media"

// mediaTypes are the supported file systems of media.
var mediaTypes = []string{"vfat", "exfat", "ext4", "iso9660"}

// medium is a block device with the directory updater/ or the label [UpdateLabel].
type medium struct {
	Block
	update *Update // nil if err is set
	err    error
}

// media mounts every block device that is not on the device's own disk and calls use for each medium, while it is mounted:
// read-only, without devices, programs and set-user-ID files. It stops when use returns true.
func (r *runner) media(own string, use func(m medium) (stop bool)) error {
	blocks, err := r.candidates(own)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if r.lookInto(b, use) {
			return nil
		}
	}
	return nil
}

// candidates lists the block devices that may be media: none while the device's own disk is unknown.
func (r *runner) candidates(own string) ([]Block, error) {
	if own == "" {
		return nil, nil
	}
	if err := os.MkdirAll(mediaDir, 0o755); err != nil {
		return nil, err
	}
	for _, fs := range mediaTypes {
		r.loader.plug("fs-" + fs)
	}
	blocks, err := Blocks()
	return slices.DeleteFunc(slices.Clone(blocks), func(b Block) bool { return b.of(own) || holdsPartitions(blocks, b) }), err
}

// holdsPartitions reports whether b is a disk with partitions, which are examined instead. On optical drives the disk itself
// counts: a hybrid ISO image has a file system and a partition table.
func holdsPartitions(blocks []Block, b Block) bool {
	return b.Node == b.Disk && slices.ContainsFunc(blocks, func(o Block) bool { return o.Disk == b.Node && o.Node != b.Node }) &&
		!strings.HasPrefix(b.Node, "/dev/sr")
}

// lookInto mounts a block device and calls use if it is a medium.
func (r *runner) lookInto(b Block, use func(m medium) (stop bool)) (stop bool) {
	m := medium{Block: b}
	label := volumeLabel(b.Node)
	err := mount(b.Node)
	switch {
	case err != nil && label == UpdateLabel:
		m.err = fmt.Errorf("update medium %s: mounting its file system, which is damaged or of an unsupported type: %w", b.Node, err)
		return use(m)
	case err != nil:
		return false // not an update medium
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

// ext4ReadOnly does not replay the journal: media stay unchanged. An error of the file system, whose superblock may ask for a panic, costs no
// more than that the medium cannot be read.
const ext4ReadOnly = "noload,errors=remount-ro"

// mount mounts a medium. If all types fail, it returns the error of the first type that recognized the file system, else of
// the last type.
func mount(node string) error {
	var first error
	for _, fs := range mediaTypes {
		flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		data := ""
		if fs == "ext4" {
			data = ext4ReadOnly
		}
		err := unix.Mount(node, mediaDir, fs, flags, data)
		if err == nil {
			return nil
		}
		// EINVAL: another type of file system; ENODEV: a type unknown to this kernel.
		if first == nil || errors.Is(first, unix.EINVAL) || errors.Is(first, unix.ENODEV) {
			first = err
		}
	}
	return first
}

func unmount(node string) error {
	err := unix.Unmount(mediaDir, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(mediaDir, unix.MNT_DETACH) // the mount point is needed for the next medium
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", node, err)
	}
	return nil
}

// endings are the file name extensions an image may have.
var endings = []string{"", ".zst", ".xz", ".gz", ".lz4", ".bz2"}

// releaseName is the document of a release, which names everything else.
const releaseName = "release.toml"

// pick finds the update in the directory updater/ of a medium or, if labelled is set, in its root directory: release.toml, or the one bmap.
// It returns nil, nil if the directory does not exist, and an error unless it holds exactly one update.
func pick(root string, labelled bool) (*Update, error) {
	dir, name := filepath.Join(root, "updater"), "updater/"
	if info, err := os.Lstat(dir); (err != nil || !info.IsDir()) && labelled {
		dir, name = root, "root directory"
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
		if e.Name() == releaseName && e.Type().IsRegular() {
			return &Update{Image: filepath.Join(dir, releaseName)}, nil
		}
		if strings.HasSuffix(e.Name(), ".bmap") && e.Type().IsRegular() {
			bmaps = append(bmaps, e.Name())
		}
	}
	if len(bmaps) != 1 {
		return nil, fmt.Errorf("%s holds %d bmaps %.80q, expected one", name, len(bmaps), bmaps[:min(len(bmaps), 4)])
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
		base = filepath.Base(base)
		return nil, fmt.Errorf("%s holds %q but no image for it, expected a name such as %q or %q", name, bmaps[0], base, base+".zst")
	}
	for _, ext := range []string{".sig", ".asc"} {
		info, err := os.Lstat(u.Bmap + ext)
		if err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s holds %q, which is not a regular file", name, bmaps[0]+ext)
		}
		if err == nil {
			u.Signature = u.Bmap + ext
		}
	}
	return u, nil
}
