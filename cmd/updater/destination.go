package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/update"
)

// destination is where bmap copy writes to: a block device, or a file that gets its name only when it is whole.
type destination struct {
	name  string
	dev   *blockdev.Device
	w     *blockdev.Writer // on dev, nil before openWriter
	whole bool             // a whole disk
	temp  string           // of a file: what is written, "" once it has its name
	mode  os.FileMode
}

// openDestination opens a device exclusively, or makes a temporary file beside name. size is that of the image, -1 when
// it is not known; others are files that must not be overwritten.
func openDestination(name string, size int64, others ...string) (*destination, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if underDev(name) {
			return nil, fmt.Errorf("opening %s: %w; a file is not made below /dev", name, err)
		}
		return newFile(name, size, 0o644)
	}
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if o, err := os.Stat(other); err == nil && os.SameFile(o, info) {
			return nil, usagef("%s is %s itself", name, other)
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
		return nil, usagef("%s is neither a block device nor a regular file", name)
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

// maxUnknownFile is the largest file of an image of unknown size, below what file systems can hold.
const maxUnknownFile = 8 << 40

func newFile(name string, size int64, mode os.FileMode) (_ *destination, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return nil, err
	}
	d := &destination{name: name, temp: f.Name(), mode: mode}
	if size < 0 { // an image that is longer than the room for it cannot become a file
		var st unix.Statfs_t
		err = unix.Fstatfs(int(f.Fd()), &st)
		size = min(int64(st.Bavail)*int64(st.Bsize), maxUnknownFile)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		d.dev, err = blockdev.OpenPath(d.temp, 0, 0, blockdev.Exclusive)
	}
	if err != nil {
		d.discard()
		return nil, fmt.Errorf("making %s: %w", name, err)
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
	if d.temp != "" {
		_ = os.Remove(d.temp)
	}
}

// commit gives a file its size and its name, durably. A device is durable already.
func (d *destination) commit(size int64) error {
	if d.temp == "" {
		return nil
	}
	f, err := os.OpenFile(d.temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(size), f.Chmod(d.mode), f.Sync(), f.Close())
	if err == nil {
		err = rename(d.temp, d.name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", d.name, err)
	}
	d.temp = ""
	return nil
}

// openWriter makes the writer of the destination.
func (d *destination) openWriter(engine string) (err error) {
	d.w, err = d.dev.NewWriter(blockdev.WriterOptions{Engine: engine})
	return err
}

// fitTable moves the backup GPT of a whole disk to its end. A table that cannot be fitted is worth a warning only, unless
// a partition was to grow: the image itself is on the disk.
func (d *destination) fitTable(grow bool, out *report) (*gptResult, error) {
	if !d.whole {
		return nil, nil
	}
	sector, err := blockdev.SectorSize(d.name)
	if err != nil {
		return nil, err
	}
	fit, err := blockdev.FitGPT(d.dev, blockdev.GPTOptions{SectorSize: sector, GrowLast: grow})
	if is[*blockdev.GPTError](err) && !grow {
		out.warn("%v; the image is on the disk as it was", err)
		return nil, nil
	}
	if err != nil || !fit.Moved {
		return nil, err
	}
	return &gptResult{BackupSector: fit.NewLBA, OldSector: fit.OldLBA, Grown: fit.Grown, GrownBytes: fit.GrownTo}, nil
}

// copyError is an error of a copy, whose next step is another one than that of an install.
type copyError struct {
	err  error
	hint string
}

func (e *copyError) Error() string { return e.err.Error() }
func (e *copyError) Unwrap() error { return e.err }

// Hint tells what to do next.
func (e *copyError) Hint() string { return e.hint }

// explain adds what an error has left behind to what to do next.
func (d *destination) explain(err error) error {
	left := d.name + " holds a part of the image, copy it again"
	if d.temp != "" {
		left = d.name + " was not changed"
	}
	_, hint := classify(err)
	switch {
	case is[*update.WriteError](err), is[*update.ReadBackError](err): // there is no slot
		hint = "check the medium; " + left
	case hint == "":
		hint = left
	default:
		hint += "; " + left
	}
	return &copyError{err: err, hint: hint}
}
