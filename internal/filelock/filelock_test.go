package filelock_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

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
