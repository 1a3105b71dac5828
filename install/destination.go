package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/device/config"
	"updater/internal/atomicfile"
	"updater/update"
)

// destination is the target of a copy: a block device, or a file that gets its name only once it is complete.
type destination struct {
	name  string
	dev   *blockdev.Device
	w     *blockdev.Writer // on dev, nil before openWriter
	whole bool             // a whole disk
	file  *atomicfile.File // nil for a device
	mode  os.FileMode      // of the file
}

// openDestination opens a device exclusively, or creates a temporary file beside name. size is that of the image, -1 if it is not
// known; others are files that must not be overwritten.
func openDestination(name string, size int64, others ...string) (*destination, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if underDev(name) {
			return nil, fmt.Errorf("opening %s: %w; no file is created below /dev", name, err)
		}
		return newFile(name, size, 0o644)
	}
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if o, err := os.Stat(other); err == nil && os.SameFile(o, info) {
			return nil, config.Requestf("%s is %s itself", name, other)
		}
	}
	switch {
	case info.Mode().IsRegular():
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			return nil, err
		}
		return newFile(real, size, info.Mode().Perm())
	case info.Mode().Type() != os.ModeDevice:
		return nil, config.Requestf("%s is neither a block device nor a regular file", name)
	}
	whole, err := blockdev.IsWholeDisk(name)
	if err != nil {
		return nil, err
	}
	dev, err := blockdev.OpenPath(name, 0, 0, blockdev.Exclusive)
	if err != nil {
		return nil, err
	}
	if size > dev.Size() {
		_ = dev.Close()
		return nil, &update.IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit %s, which has %d", size, name, dev.Size())}
	}
	return &destination{name: name, dev: dev, whole: whole}, nil
}

// underDev reports whether the path is one of device nodes.
func underDev(name string) bool {
	abs, err := filepath.Abs(name)
	if err != nil {
		return true
	}
	return strings.HasPrefix(abs, "/dev/") && !strings.HasPrefix(abs, "/dev/shm/")
}

// maxUnknownFile is the largest file of an image of unknown size, below the limits of file systems.
const maxUnknownFile = 8 << 40

func newFile(name string, size int64, mode os.FileMode) (*destination, error) {
	f, err := atomicfile.Create(name)
	if err != nil {
		return nil, err
	}
	d := &destination{name: name, file: f, mode: mode}
	if size < 0 { // an image that is longer than the free space cannot become a file
		var st unix.Statfs_t
		err = unix.Statfs(f.Name(), &st)
		size = min(int64(st.Bavail)*int64(st.Bsize), maxUnknownFile)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		d.dev, err = blockdev.OpenPath(f.Name(), 0, 0, blockdev.Exclusive)
	}
	if err != nil {
		d.discard()
		return nil, fmt.Errorf("creating %s: %w", name, err)
	}
	return d, nil
}

// discard closes the destination, and removes a file that did not get its name.
func (d *destination) discard() {
	switch {
	case d.w != nil:
		_ = d.w.Close()
	case d.dev != nil:
		_ = d.dev.Close()
	}
	if d.file != nil {
		_ = d.file.Discard()
	}
}

// commit gives a file its size and its name, durably. A device is durable already.
func (d *destination) commit(size int64) error {
	if d.file == nil {
		return nil
	}
	return d.file.Commit(size, d.mode)
}

// openWriter creates the writer of the destination.
func (d *destination) openWriter(engine string) (err error) {
	d.w, err = d.dev.NewWriter(blockdev.WriterOptions{Engine: engine})
	return err
}

// fitTable moves the backup GPT of a whole disk to its end. A table that cannot be fitted is only a warning, unless a partition was to grow:
// the image itself is on the disk.
func (d *destination) fitTable(grow bool, warn func(format string, a ...any)) (*TableChange, error) {
	if !d.whole {
		return nil, nil
	}
	sector, err := blockdev.SectorSize(d.name)
	if err != nil {
		return nil, err
	}
	fit, err := blockdev.FitGPT(d.dev, blockdev.GPTOptions{SectorSize: sector, GrowLast: grow})
	if _, bad := errors.AsType[*blockdev.GPTError](err); bad && !grow {
		warn("%v; the image is on the disk as it was", err)
		return nil, nil
	}
	if err != nil || !fit.Moved {
		return nil, err
	}
	return &TableChange{BackupSector: fit.NewLBA, OldSector: fit.OldLBA, Grown: fit.Grown, GrownBytes: fit.GrownTo}, nil
}

// CopyError is a copy that failed after its destination was opened.
type CopyError struct {
	Err  error
	Left string // content of the destination, and the next action
}

func (e *CopyError) Error() string { return e.Err.Error() }
func (e *CopyError) Unwrap() error { return e.Err }

// explain adds to an error what the destination holds.
func (d *destination) explain(err error) error {
	if d.file != nil {
		return &CopyError{Err: err, Left: d.name + " was not changed"}
	}
	return &CopyError{Err: err, Left: d.name + " holds a part of the image, copy it again"}
}
