package medium_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"updater/provision/medium"
	"updater/provision/record"
	"updater/provision/target"
)

// device hangs in its reads until it is released.
type device struct {
	hang   chan struct{}
	closed atomic.Bool
	late   atomic.Bool // an operation came after Close
}

func (d *device) ReadBackAt(p []byte, _ int64) (int, error) {
	<-d.hang
	d.late.Store(d.late.Load() || d.closed.Load())
	return len(p), nil
}
func (d *device) WriteAt(p []byte, _ int64) (int, error) { d.late.Store(true); return len(p), nil }
func (d *device) Zero(int64, int64) error                { d.late.Store(true); return nil }
func (d *device) Sync() error                            { d.late.Store(true); return nil }
func (d *device) Flush() error                           { return d.Sync() }
func (d *device) Size() int64                            { return 1 << 20 }
func (d *device) Writer() medium.Writer                  { return d }
func (d *device) FitTable(int, bool) (bool, error)       { return false, nil }
func (d *device) Close() error                           { d.closed.Store(true); return nil }

// TestGivenUp: a disk that does not answer is found, nothing more is done on it, and it is closed only after its last operation: the number
// of its descriptor may belong to another file by then.
func TestGivenUp(t *testing.T) {
	d := &device{hang: make(chan struct{})}
	m := medium.New("slot1", &target.Disk{Disk: record.Disk{Sector: 512}}, d, nil)
	ended := make(chan error)
	go func() {
		_, err := m.ReadBackAt(make([]byte, 1), 0)
		ended <- err
	}()
	for !m.Stalled(20 * time.Millisecond) {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.WriteAt([]byte{1}, 0); !errors.Is(err, medium.ErrStalled) {
		t.Errorf("a write after that = %v", err)
	}
	if err := m.Flush(); !errors.Is(err, medium.ErrStalled) {
		t.Errorf("a flush after that = %v", err)
	}
	if err := m.Close(); !errors.Is(err, medium.ErrStalled) {
		t.Errorf("Close = %v", err)
	}
	time.Sleep(20 * time.Millisecond)
	if d.closed.Load() {
		t.Error("it was closed under a running operation")
	}
	close(d.hang)
	if err := <-ended; !errors.Is(err, medium.ErrStalled) {
		t.Errorf("the operation that hung = %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); !d.closed.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was never closed")
		}
	}
	if d.late.Load() {
		t.Error("something was done on a disk that was given up")
	}
}

// TestBlame: an error becomes one of the medium only if the medium has failed.
func TestBlame(t *testing.T) {
	d := &device{hang: make(chan struct{})}
	close(d.hang)
	m := medium.New("slot1", &target.Disk{Disk: record.Disk{Sector: 512}}, d, nil)
	other := errors.New("no certificate")
	if err := m.Blame("writing", other); err != other {
		t.Errorf("Blame of a good medium = %v", err)
	}
	bad := medium.New("slot1", &target.Disk{Disk: record.Disk{Sector: 512}}, failing{d}, nil)
	if err := bad.Sync(); err == nil {
		t.Fatal("the fake does not fail")
	}
	err := bad.Blame("writing", other)
	if e, ok := errors.AsType[*medium.Error](err); !ok || e.Unit != "slot1" || e.Step != "writing" || !errors.Is(err, other) {
		t.Errorf("Blame of a bad medium = %v", err)
	}
	if again := bad.Blame("flushing", err); again != err {
		t.Errorf("Blame of an error of the medium = %v", again)
	}
}

type failing struct{ *device }

func (failing) Sync() error { return errors.New("input/output error") }
