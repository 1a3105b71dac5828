package main

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// slowRate is the rate of reads and of writes of the slow device, in bytes a second: that of an eMMC.
const slowRate = 40_000_000

// mountSlow serves a file as dir/disk at slowRate.
func mountSlow(backing *os.File, size int64, dir string) (unmount func(), err error) {
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{
			MaxWrite: 1 << 20, DirectMount: true, Name: "slow",
			MaxBackground: 64, ExtraCapabilities: fuse.CAP_ASYNC_DIO, // reads do not wait for writes
		},
		OnAdd: func(ctx context.Context) {
			f := &slowFile{backing: backing, size: size}
			root.AddChild("disk", root.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		return nil, err
	}
	return func() { _ = server.Unmount() }, nil
}

type slowFile struct {
	fs.Inode
	backing     *os.File
	size        int64
	read, write line
}

// line is one direction.
type line struct {
	mu   sync.Mutex
	free time.Time
}

// pass waits until n more bytes have passed.
func (l *line) pass(n int) {
	l.mu.Lock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(n) * time.Second / slowRate)
	until := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(until))
}

func (f *slowFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(f.size)
	return 0
}

func (f *slowFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *slowFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, _ := f.backing.ReadAt(dest, off) // at the end it is short
	f.read.pass(n)
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *slowFile) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n, err := f.backing.WriteAt(data, off)
	f.write.pass(n)
	return uint32(n), fs.ToErrno(err)
}

func (f *slowFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }
