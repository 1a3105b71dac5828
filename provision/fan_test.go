package provision_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"updater/provision"
)

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
func fanOut(t testing.TB, l *line, o provision.FanOptions, rates ...float64) ([]*provision.Out, time.Duration) {
	t.Helper()
	image, err := l.payloads[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var outs []*provision.Out
	for _, rate := range rates {
		outs = append(outs, &provision.Out{Sink: &throttled{rate: rate}})
	}
	start := time.Now()
	if err := provision.FanOut(context.Background(), l.payloads[0].Doc.Map, image, outs, o); err != nil {
		t.Fatal(err)
	}
	return outs, time.Since(start)
}

// BenchmarkFan measures 8 targets against 1 in the same run, where the media are the bottleneck: the time and the
// memory of the fan.
func BenchmarkFan(b *testing.B) {
	l := newLine(b, linePlan, 64<<20)
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
		_, d := fanOut(b, l, provision.FanOptions{}, rates...)
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

// TestFanLeavesTheSlow: one that is ten times slower leaves, with what it has known exactly; the fast ones have all.
func TestFanLeavesTheSlow(t *testing.T) {
	l := newLine(t, linePlan, 24<<20)
	outs, _ := fanOut(t, l, provision.FanOptions{Patience: 500 * time.Millisecond}, 400e6, 5e6, 400e6)
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
	// It goes on where it was, and alone nobody leaves.
	image, err := l.payloads[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	rest := &provision.Out{Sink: slow.Sink, At: slow.At}
	if err := provision.FanOut(t.Context(), l.payloads[0].Doc.Map, image, []*provision.Out{rest}, provision.FanOptions{Patience: time.Millisecond}); err != nil || rest.Behind || rest.At != 24<<20 {
		t.Errorf("the rest: %+v, %v", rest, err)
	}
	if total := slow.Sink.(*throttled).bytes.Load(); total != l.payloads[0].Doc.Map.MappedBytes() {
		t.Errorf("the slow one got %d bytes, mapped are %d", total, l.payloads[0].Doc.Map.MappedBytes())
	}
}

// TestFanCancelled: a cancelled fan never ends without an error.
func TestFanCancelled(t *testing.T) {
	l := newLine(t, linePlan, 8<<20)
	why := errors.New("enough")
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(after, func() { stop(why) })
		image, err := l.payloads[0].Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := &provision.Out{Sink: &throttled{rate: 10e6}}
		if err := provision.FanOut(ctx, l.payloads[0].Doc.Map, image, []*provision.Out{out}, provision.FanOptions{Patience: time.Millisecond}); !errors.Is(err, why) {
			t.Errorf("cancelled after %s: %v", after, err)
		}
		image.Close()
	}
}
