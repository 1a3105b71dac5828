// Command line measures the cost of more targets of `updater provision`: one throttled disk against several, in turns. Every
// disk is a loop device over a FUSE file with a limited rate, like a card's. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	updater := flag.String("updater", "", "program to measure")
	plan := flag.String("plan", "", "plan without targets")
	n := flag.Int("targets", 8, "disks of the many")
	mib := flag.Int64("size", 160, "MiB of a disk")
	rate := flag.Int64("rate", 8, "MB/s of a disk")
	runs := flag.Int("runs", 3, "runs of each")
	flag.Parse()
	if err := measure(*updater, *plan, *n, *mib<<20, *rate*1e6, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "line:", err)
		os.Exit(1)
	}
}

func measure(updater, plan string, n int, size, rate int64, runs int) (err error) {
	dir, err := os.MkdirTemp("", "line")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mount, store := filepath.Join(dir, "mount"), filepath.Join(dir, "store")
	for _, d := range []string{mount, store} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	server, err := serve(mount, store, n, size, rate)
	if err != nil {
		return err
	}
	defer func() {
		for range 50 { // the loop devices are released with a delay
			if err = server.Unmount(); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	var nodes []string
	for i := range n {
		out, err := exec.Command("losetup", "-f", "--show", filepath.Join(mount, fmt.Sprint(i))).Output()
		if err != nil {
			return fmt.Errorf("losetup: %w", err)
		}
		node := strings.TrimSpace(string(out))
		defer exec.Command("losetup", "-d", node).Run()
		nodes = append(nodes, node)
	}
	var seconds, peak [2][]float64
	for range runs {
		for i, targets := range [][]string{nodes[:1], nodes} {
			s, mib, err := provision(updater, plan, targets)
			if err != nil {
				return err
			}
			seconds[i], peak[i] = append(seconds[i], s), append(peak[i], mib)
		}
	}
	t1, t8, m1, m8 := median(seconds[0]), median(seconds[1]), median(peak[0]), median(peak[1])
	fmt.Printf("provision, disks of %d MB/s, median of %d runs in turns\n", rate/1e6, runs)
	fmt.Printf("  1 target   %6.1f s  peak RSS %5.1f MiB\n", t1, m1)
	fmt.Printf("  %d targets  %6.1f s  peak RSS %5.1f MiB\n", n, t8, m8)
	fmt.Printf("  ratio      %6.2f of 1.15        %5.2f of 1.50\n", t8/t1, m8/m1)
	return nil
}

func median(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }

// provision runs the program once, and returns its seconds and its peak memory in MiB. Every target has to pass.
func provision(updater, plan string, targets []string) (seconds, mib float64, err error) {
	args := []string{"provision", "--plain", "--plan", plan}
	for _, t := range targets {
		args = append(args, "--target", t)
	}
	cmd := exec.Command(updater, args...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	seconds = time.Since(start).Seconds()
	if passed := strings.Count(string(out), ": PASS, record"); err != nil || passed != len(targets) {
		return 0, 0, fmt.Errorf("%d of %d targets passed: %w\n%s", passed, len(targets), err, out)
	}
	return seconds, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024, nil
}

// serve mounts n throttled files.
func serve(mount, store string, n int, size, rate int64) (*fuse.Server, error) {
	root := &fs.Inode{}
	var files []*file
	for i := range n {
		f, err := os.Create(filepath.Join(store, fmt.Sprint(i)))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, &file{f: f, size: size, rate: rate})
	}
	return fs.Mount(mount, root, &fs.Options{
		MountOptions: fuse.MountOptions{MaxWrite: 1 << 20, DirectMount: true, Name: "throttled"},
		OnAdd: func(ctx context.Context) {
			for i, f := range files {
				child := root.NewPersistentInode(ctx, f, fs.StableAttr{Mode: syscall.S_IFREG, Ino: uint64(i + 2)})
				root.AddChild(fmt.Sprint(i), child, true)
			}
		},
	})
}

// file is a disk with a limited rate that serves one request at a time.
type file struct {
	fs.Inode
	f          *os.File
	size, rate int64

	mu   sync.Mutex
	free time.Time // when the disk has served all requests so far
}

// pace waits until the disk has served n more bytes.
func (f *file) pace(n int) {
	f.mu.Lock()
	if now := time.Now(); f.free.Before(now) {
		f.free = now
	}
	f.free = f.free.Add(time.Duration(int64(n) * int64(time.Second) / f.rate))
	until := f.free
	f.mu.Unlock()
	time.Sleep(time.Until(until))
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(f.size), 4096
	return 0
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, _ := f.f.ReadAt(dest, off)
	f.pace(n)
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.pace(len(data))
	n, err := f.f.WriteAt(data, off)
	return uint32(n), fs.ToErrno(err)
}

// The interfaces of the FUSE library are found by their methods.
var _ = []any{fs.NodeGetattrer(&file{}), fs.NodeOpener(&file{}), fs.NodeFsyncer(&file{}), fs.NodeReader(&file{}), fs.NodeWriter(&file{})}
