// Package fuse serves a crash disk through FUSE as one file, and attaches a loop device to it: a real block device of
// the running kernel, with its page cache and its way of reporting errors, whose drive is the model. It is for tests,
// needs root, /dev/fuse and a loop device, and runs losetup.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"updater/internal/crashdisk"
)

// Available returns why the package cannot work here, nil when it can.
func Available() error {
	if os.Getuid() != 0 {
		return errors.New("a loop device over FUSE needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return err
	}
	_, err := exec.LookPath("losetup")
	return err
}

// Disk is a crash disk as a file, and perhaps as a block device.
type Disk struct {
	File   string
	Node   string // /dev/loopN; "" means none
	server *fuse.Server
}

// Mount serves d as a file below dir, an empty folder. Close it.
func Mount(d *crashdisk.Disk, dir string) (*Disk, error) {
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{MaxWrite: 1 << 20, DirectMount: true, Name: "crashdisk"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, &file{d: d}, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mounting the disk model: %w", err)
	}
	return &Disk{File: filepath.Join(dir, "disk"), server: server}, nil
}

// Attach is Mount with a loop device.
func Attach(d *crashdisk.Disk, dir string) (*Disk, error) {
	disk, err := Mount(d, dir)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("losetup", "-f", "--show", disk.File).CombinedOutput()
	if err != nil {
		_ = disk.server.Unmount()
		return nil, fmt.Errorf("attaching a loop device: %w: %s", err, out)
	}
	disk.Node = strings.TrimSpace(string(out))
	return disk, nil
}

// Close detaches the loop device and unmounts. The kernel's remaining writes still reach the disk and its faults.
func (d *Disk) Close() error {
	if d.Node == "" {
		return d.server.Unmount()
	}
	out, err := exec.Command("losetup", "-d", d.Node).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("detaching %s: %w: %s", d.Node, err, out)
	}
	return errors.Join(err, d.server.Unmount())
}

// file is the disk as a file. Every request is one command to the drive.
type file struct {
	fs.Inode
	d *crashdisk.Disk
}

var (
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
	_ fs.NodeAllocater = (*file)(nil)
)

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(f.d.Size())
	return 0
}

func (f *file) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := max(0, min(int64(len(dest)), f.d.Size()-off))
	return fuse.ReadResultData(dest[:n]), errno(f.d.ReadCommand(dest[:n], off))
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(data)), errno(f.d.WriteCommand(data, off))
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return errno(f.d.FlushCommand())
}

// Allocate handles discards and writes of zeros from the loop device: both zero the range.
func (f *file) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const keepSize, punchHole, zeroRange = 1, 2, 16
	if mode&(punchHole|zeroRange) == 0 || mode&keepSize == 0 {
		return syscall.EOPNOTSUPP
	}
	return errno(f.d.ZeroCommand(int64(off), int64(size)))
}

func errno(err error) syscall.Errno {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	if err != nil {
		return syscall.EIO
	}
	return 0
}
