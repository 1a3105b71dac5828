package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Update is an update on a mounted medium. None of its files was verified.
type Update struct {
	Device    string // that holds it
	Image     string // paths
	Bmap      string
	Signature string // "" when the bmap may be clearsigned
	dir       string // mount point
}

// Close unmounts the medium.
func (u *Update) Close() error {
	if err := unix.Unmount(u.dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", u.Device, err)
	}
	return nil
}

const mediaDir = "/run/updater/media"

// mediaTypes are the file systems that a medium may have.
var mediaTypes = []string{"vfat", "ext4", "iso9660"}

// FindUpdate looks at every block device that is not on the device's own disk, until one has a folder
// updater/ with exactly one *.bmap and its image. A medium is mounted read-only, without devices, programs
// and set-user-id files. A medium that has the folder but not one update is an error at once.
func FindUpdate(ctx context.Context, l *Loader, ev *Uevents, disk string, timeout time.Duration) (*Update, error) {
	own, err := filepath.EvalSymlinks(disk)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(mediaDir, 0o755); err != nil {
		return nil, err
	}
	for _, fs := range mediaTypes {
		l.plug("fs-" + fs)
	}
	for deadline := time.Now().Add(timeout); ; {
		blocks, err := Blocks()
		if err != nil {
			return nil, err
		}
		for _, b := range blocks {
			if b.Disk == own {
				continue
			}
			if u, err := lookInto(b.Node); u != nil || err != nil {
				return u, err
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no medium with a folder updater/ within %s; there are %s", timeout, names())
		}
		if err := ev.Wait(l, look); err != nil {
			return nil, err
		}
	}
}

// lookInto mounts a block device and looks for the folder. nil, nil is a device without one.
func lookInto(node string) (*Update, error) {
	if !mount(node) {
		return nil, nil
	}
	u, err := pick(filepath.Join(mediaDir, "updater"))
	if u == nil || err != nil {
		if err != nil {
			err = fmt.Errorf("update medium %s: %w", node, err)
		}
		return nil, errors.Join(err, unix.Unmount(mediaDir, 0))
	}
	u.Device, u.dir = node, mediaDir
	return u, nil
}

func mount(node string) bool {
	for _, fs := range mediaTypes {
		flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		data := ""
		if fs == "ext4" {
			data = "noload" // a medium is not changed, its journal not replayed
		}
		if unix.Mount(node, mediaDir, fs, flags, data) == nil {
			return true
		}
	}
	return false
}

// endings are the names that an image may have beside its bmap.
var endings = []string{"", ".zst", ".xz", ".gz", ".lz4", ".bz2"}

// pick finds the one update in a folder; nil, nil when there is no folder.
func pick(dir string) (*Update, error) {
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
		return nil, fmt.Errorf("updater/ has %d bmaps (%s), expected one", len(bmaps), strings.Join(bmaps, ", "))
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
		return nil, fmt.Errorf("updater/ has %s but not its image, such as %s or %s.zst", bmaps[0], filepath.Base(base), filepath.Base(base))
	}
	for _, ext := range []string{".asc", ".sig"} {
		if info, err := os.Lstat(u.Bmap + ext); err == nil && info.Mode().IsRegular() && u.Signature == "" {
			u.Signature = u.Bmap + ext
		}
	}
	return u, nil
}
