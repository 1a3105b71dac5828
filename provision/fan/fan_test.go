package fan_test

import (
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"updater/bmap"
	"updater/provision/fan"
	"updater/source"
)

// image is an image file of size bytes with data in its first and last third.
type image struct {
	name string
	m    *bmap.Map
}

func newImage(t testing.TB, size int64) *image {
	t.Helper()
	data := make([]byte, size)
	rnd := rand.New(rand.NewSource(1))
	rnd.Read(data[:size/3])
	rnd.Read(data[size/3*2 : size-size/8])
	img := &image{name: filepath.Join(t.TempDir(), "rootfs.img")}
	if err := os.WriteFile(img.name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(img.name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if img.m, err = bmap.Create(context.Background(), f, bmap.CreateOptions{MaxRange: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	return img
}

// throttled is a medium of a fixed speed.
type throttled struct {
	rate  float64 // bytes a second
	next  time.Time
	bytes atomic.Int64
}

func (s *throttled) WriteAt(p []byte, _ int64) (int, error) {
	now := time.Now()
	if s.next.Before(now) {
		s.next = now
	}
	s.next = s.next.Add(time.Duration(float64(len(p)) / s.rate * float64(time.Second)))
	time.Sleep(time.Until(s.next))
	s.bytes.Add(int64(len(p)))
	return len(p), nil
}
func (s *throttled) Zero(int64, int64) error { return nil }

// fanOut runs a fan over sinks of the given speeds.
func fanOut(t testing.TB, img *image, o fan.Options, rates ...float64) ([]*fan.Out, time.Duration) {
	t.Helper()
	stream, err := source.Open(img.name, nil, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var outs []*fan.Out
	for _, rate := range rates {
		outs = append(outs, &fan.Out{Sink: &throttled{rate: rate}})
	}
	start := time.Now()
	if err := fan.Run(context.Background(), img.m, stream, outs, o); err != nil {
		t.Fatal(err)
	}
	return outs, time.Since(start)
}

// BenchmarkFan measures 8 targets against 1 in the same run, where the media are the bottleneck: the time and the
// memory of the fan.
func BenchmarkFan(b *testing.B) {
	img := newImage(b, 64<<20)
	const rate = 20e6
	var peak [2]uint64
	var took [2]time.Duration
	measure := func(i int, rates ...float64) {
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		done := make(chan struct{})
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
					runtime.ReadMemStats(&now)
					peak[i] = max(peak[i], now.HeapInuse)
				}
			}
		}()
		_, d := fanOut(b, img, fan.Options{}, rates...)
		close(done)
		took[i] += d
	}
	for b.Loop() {
		measure(0, rate)
		measure(1, rate, rate, rate, rate, rate, rate, rate, rate)
	}
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "time-8-to-1")
	b.ReportMetric(float64(peak[1])/float64(peak[0]), "heap-8-to-1")
}

// TestFanLeavesTheSlow: a target that is ten times slower leaves with an exact position; the fast ones get everything.
func TestFanLeavesTheSlow(t *testing.T) {
	img := newImage(t, 24<<20)
	outs, _ := fanOut(t, img, fan.Options{Patience: 500 * time.Millisecond}, 400e6, 5e6, 400e6)
	slow := outs[1]
	if !slow.Behind || !slow.Wait(time.Minute) || slow.Err != nil {
		t.Fatalf("the slow one: %+v", slow)
	}
	for _, i := range []int{0, 2} {
		if outs[i].Behind || outs[i].Err != nil || outs[i].At != 24<<20 {
			t.Errorf("target %d: behind %t, %v, at %d", i, outs[i].Behind, outs[i].Err, outs[i].At)
		}
	}
	had := slow.Sink.(*throttled).bytes.Load()
	if slow.At <= 0 || slow.At >= 24<<20 || had > slow.At {
		t.Errorf("the slow one is at %d with %d bytes", slow.At, had)
	}
	// It goes on where it was, and alone it does not leave.
	stream, err := source.Open(img.name, nil, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	rest := &fan.Out{Sink: slow.Sink, At: slow.At}
	if err := fan.Run(t.Context(), img.m, stream, []*fan.Out{rest}, fan.Options{Patience: time.Millisecond}); err != nil || rest.Behind ||
		rest.At != 24<<20 {
		t.Errorf("the rest: %+v, %v", rest, err)
	}
	if total := slow.Sink.(*throttled).bytes.Load(); total != img.m.MappedBytes() {
		t.Errorf("the slow one got %d bytes, mapped are %d", total, img.m.MappedBytes())
	}
}

// TestFanCancelled: a cancelled fan never ends without an error.
func TestFanCancelled(t *testing.T) {
	img := newImage(t, 8<<20)
	why := errors.New("enough")
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(after, func() { stop(why) })
		stream, err := source.Open(img.name, nil, source.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		out := &fan.Out{Sink: &throttled{rate: 10e6}}
		if err := fan.Run(ctx, img.m, stream, []*fan.Out{out}, fan.Options{Patience: time.Millisecond}); !errors.Is(err, why) {
			t.Errorf("cancelled after %s: %v", after, err)
		}
		stream.Close()
	}
}

// failing is a medium that fails at an offset.
type failing struct{ at int64 }

func (s failing) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.at {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}
func (s failing) Zero(int64, int64) error { return nil }

// TestFanOutlivesFailures: a target that fails leaves the others alone, and a fan without targets ends.
func TestFanOutlivesFailures(t *testing.T) {
	img := newImage(t, 8<<20)
	for _, good := range []bool{true, false} {
		stream, err := source.Open(img.name, nil, source.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		outs := []*fan.Out{{Sink: failing{1 << 20}}, {Sink: failing{2 << 20}}}
		if good {
			outs = append(outs, &fan.Out{Sink: failing{1 << 40}})
		}
		if err := fan.Run(t.Context(), img.m, stream, outs, fan.Options{}); err != nil {
			t.Fatal(err)
		}
		stream.Close()
		for i, out := range outs[:2] {
			if !errors.Is(out.Err, io.ErrShortWrite) || out.At > int64(i+1)<<20 {
				t.Errorf("target %d: %v at %d", i, out.Err, out.At)
			}
		}
		if good && (outs[2].Err != nil || outs[2].At != 8<<20) {
			t.Errorf("the good one: %v at %d", outs[2].Err, outs[2].At)
		}
	}
}
