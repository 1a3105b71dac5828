package rig

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FaultyFiles mounts a folder with files of size bytes for loop devices: "slow" delays each write, "fails" has an
// error in its second half, and "lies" confirms writes and flushes but keeps only the writes to its tables at both ends. It
// returns "" if FUSE does not work.
func FaultyFiles(t *testing.T, size int64) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Getuid() != 0 {
		t.Log("SKIPPED the slow, failing and lying devices: FUSE needs root and /dev/fuse")
		return ""
	}
	dir := t.TempDir()
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, Name: "faulty"},
		OnAdd: func(ctx context.Context) {
			for ino, f := range []*faultyFile{
				{size: size, write: func(int64, int) (bool, syscall.Errno) { time.Sleep(20 * time.Millisecond); return true, 0 }},
				{size: size, write: func(off int64, n int) (bool, syscall.Errno) {
					if off < size/2 && off+int64(n) > 18<<20 {
						return false, syscall.EIO
					}
					return true, 0
				}},
				{size: size, write: func(off int64, _ int) (bool, syscall.Errno) { return off < 1<<20 || off > size-1<<20, 0 }},
			} {
				f.blocks = map[int64][]byte{}
				child := root.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG, Ino: uint64(ino + 2)})
				root.AddChild([]string{"slow", "fails", "lies"}[ino], child, true)
			}
		},
	})
	if err != nil {
		t.Logf("SKIPPED the slow, failing and lying devices: %v", err)
		return ""
	}
	t.Cleanup(func() {
		for range 50 { // the loop devices are released with a delay
			if server.Unmount() == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Error("the faulty files stay mounted")
	})
	return dir
}

// faultyFile keeps its content in memory, in blocks of 4096 bytes.
type faultyFile struct {
	fs.Inode
	size  int64
	write func(off int64, n int) (keep bool, errno syscall.Errno)

	mu     sync.Mutex
	blocks map[int64][]byte
}

func (f *faultyFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(f.size), 4096
	return 0
}

func (f *faultyFile) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

func (f *faultyFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *faultyFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

func (f *faultyFile) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(dest) && off+int64(n) < f.size {
		at := off + int64(n)
		block, in := at/4096, int(at%4096)
		part := dest[n:min(len(dest), n+4096-in)]
		if data := f.blocks[block]; data != nil {
			copy(part, data[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *faultyFile) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	keep, errno := f.write(off, len(data))
	if errno != 0 {
		return 0, errno
	}
	if !keep {
		return uint32(len(data)), 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 0; n < len(data); {
		at := off + int64(n)
		block, in := at/4096, int(at%4096)
		if f.blocks[block] == nil {
			f.blocks[block] = make([]byte, 4096)
		}
		n += copy(f.blocks[block][in:], data[n:])
	}
	return uint32(len(data)), 0
}

// The interfaces of the FUSE library are found by their methods; a wrong signature would only be a file without it.
var _ = []any{fs.NodeGetattrer(&faultyFile{}), fs.NodeSetattrer(&faultyFile{}), fs.NodeOpener(&faultyFile{}), fs.NodeFsyncer(&faultyFile{}), fs.NodeReader(&faultyFile{}), fs.NodeWriter(&faultyFile{})}
