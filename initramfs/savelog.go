package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// logMenu builds the menu of media that the log can be written to.
func (r *runner) logMenu(disk string, back *menu) *menu {
	m := &menu{title: "write the log, as a new file, to"}
	blocks, err := r.candidates(disk)
	if err != nil {
		r.failed(err)
	}
	for _, b := range blocks {
		m.add(b.Node, func() (action, *menu) {
			if name, err := saveLog(b.Node, time.Now()); err != nil {
				r.failed(fmt.Errorf("writing the log to %s, which must be FAT or exFAT: %w", b.Node, err))
			} else {
				r.log("recovery: the log is on %s as %s; remove the medium", b.Node, name)
			}
			return 0, back
		})
	}
	m.add("back", func() (action, *menu) { return 0, back })
	return m
}

// saveLog writes the kernel log, which has every line of this program, to a new file on a medium. The file is on stable storage, and the medium
// unmounted, once it returns nil.
func saveLog(node string, now time.Time) (name string, err error) {
	text, err := ReadLog()
	if err != nil {
		return "", err
	}
	err = unix.EINVAL
	for _, fs := range []string{"vfat", "exfat"} {
		if err != nil {
			err = unix.Mount(node, mediaDir, fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		}
	}
	if err != nil {
		return "", os.NewSyscallError("mount", err)
	}
	defer func() { err = errors.Join(err, unmount(node)) }()
	name = now.UTC().Format("updater-20060102-150405.log")
	f, err := os.OpenFile(filepath.Join(mediaDir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	return name, errors.Join(err, f.Sync(), f.Close())
}
