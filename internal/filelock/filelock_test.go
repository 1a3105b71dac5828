package filelock_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"updater/internal/filelock"
)

// TestLock increments a counter in a file from many descriptors at a time: none is lost.
func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "counter")
	var wg sync.WaitGroup
	const n = 50
	for range n {
		wg.Go(func() {
			f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if err := filelock.Lock(f); err != nil {
				t.Error(err)
				return
			}
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, 0); err != nil && b[0] != 0 {
				t.Error(err)
			}
			b[0]++
			if _, err := f.WriteAt(b, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := os.ReadFile(name); err != nil || len(got) != 1 || got[0] != n {
		t.Errorf("the counter is %v, %v; want %d", got, err, n)
	}
	closed, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if filelock.Lock(closed) == nil {
		t.Error("a closed file was locked")
	}
}

// TestPatience: a held lock is an error once patience runs out, and is taken when its holder closes the file in time. The lock of
// the file and that of its bytes exclude only their own kind.
func TestPatience(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	open := func() *os.File {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for kind, lock := range map[string]func(f *os.File, patience time.Duration) error{
		"file":  filelock.LockFor,
		"bytes": func(f *os.File, patience time.Duration) error { return filelock.LockBytesFor(f, 1<<62, 1, patience) },
	} {
		holder := open()
		if err := lock(holder, 0); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		began := time.Now()
		if err := lock(open(), 50*time.Millisecond); !errors.Is(err, filelock.ErrHeld) || time.Since(began) < 50*time.Millisecond {
			t.Errorf("%s: a held lock = %v after %s", kind, err, time.Since(began))
		}
		time.AfterFunc(30*time.Millisecond, func() { holder.Close() })
		if err := lock(open(), time.Minute); err != nil {
			t.Errorf("%s: a lock that is released = %v", kind, err)
		}
	}
	if err := filelock.LockBytesFor(open(), 0, 8, 0); err != nil {
		t.Errorf("other bytes: %v", err)
	}
}
