package fuse_test

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/internal/crashdisk"
	"updater/internal/crashdisk/fuse"
)

func attach(t *testing.T, d *crashdisk.Disk) string {
	t.Helper()
	if err := fuse.Available(); err != nil {
		t.Skip(err)
	}
	b, err := fuse.Attach(d, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b.Node
}

// opened are the descriptors of one device: the first to write, the second opened before anything was written.
type opened struct{ a, sentinel, direct blockdev.File }

// kernelFiles opens the loop device as blockdev does.
func kernelFiles(t *testing.T, node string) opened {
	t.Helper()
	open := func(flags int) blockdev.File {
		f, err := os.OpenFile(node, unix.O_RDWR|flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return blockdev.KernelFile(f, true)
	}
	return opened{open(0), open(0), open(unix.O_DIRECT)}
}

// TestModelIsTheKernel runs the same calls on the model's page cache and on this kernel's, over the same drive with the same
// fault. Results must be equal: which call reports an error, and what each read returns.
func TestModelIsTheKernel(t *testing.T) {
	const size, piece = 1 << 20, 64 << 10
	for _, kind := range []crashdisk.Kind{crashdisk.NoFault, crashdisk.EIO, crashdisk.FlushKeep, crashdisk.FlushDrop, crashdisk.LostWrite} {
		t.Run(kind.String(), func(t *testing.T) {
			answers := func(d *crashdisk.Disk, o opened) (list []string) {
				say := func(what string, err error) {
					s := "ok"
					if err != nil {
						s = "error"
					}
					list = append(list, what+": "+s)
				}
				data := bytes.Repeat([]byte{7}, piece)
				_, err := o.a.Pwrite(data, 0)
				say("pwrite", err)
				if kind != crashdisk.NoFault {
					d.Inject(crashdisk.Fault{N: 1, Kind: kind})
				}
				say("W", o.a.SyncRange(0, piece, blockdev.Write))
				say("BWA", o.a.SyncRange(0, piece, blockdev.WriteAndWait))
				say("BWA again", o.a.SyncRange(0, piece, blockdev.WriteAndWait))
				if kind == crashdisk.FlushKeep || kind == crashdisk.FlushDrop {
					d.Heal()
					d.Inject(crashdisk.Fault{N: 1, Kind: kind})
				}
				say("fdatasync", o.a.Datasync())
				d.Heal()
				say("fdatasync again", o.a.Datasync())
				say("sentinel", o.sentinel.Datasync())
				say("sentinel again", o.sentinel.Datasync())
				for _, f := range []struct {
					name string
					file blockdev.File
				}{{"buffered", o.a}, {"direct", o.direct}} {
					got := alignedBuffer(piece)
					_, err := f.file.Pread(got, 0)
					say("read "+f.name, err)
					list = append(list, map[bool]string{true: "new data", false: "old data"}[bytes.Equal(got, data)])
				}
				return list
			}
			model := crashdisk.New(make([]byte, size), crashdisk.Options{MaxIO: piece, Seed: 2})
			want := answers(model, opened{model.Open(), model.Open(), model.OpenDirect()})
			real := crashdisk.New(make([]byte, size), crashdisk.Options{MaxIO: piece, Seed: 2})
			got := answers(real, kernelFiles(t, attach(t, real)))
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("call %d: kernel %q, model %q", i, got[i], want[i])
				}
			}
			t.Log(want)
		})
	}
}

// alignedBuffer is memory that O_DIRECT accepts.
func alignedBuffer(n int) []byte {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return p
}
