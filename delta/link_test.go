package delta

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
)

// link is a file behind a network: an answer begins after the round trip, and the answers share one rate.
type link struct {
	io.ReaderAt
	trip time.Duration
	rate int // bytes a second

	mu            sync.Mutex
	free          time.Time // when the line is free
	open, most, n int       // requests under way, the most of them at a time, and all
}

func (l *link) ReadAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	l.n, l.open = l.n+1, l.open+1
	l.most = max(l.most, l.open)
	begin := time.Now().Add(l.trip)
	if l.free.After(begin) {
		begin = l.free
	}
	l.free = begin.Add(time.Duration(len(p)) * time.Second / time.Duration(l.rate))
	until := l.free
	l.mu.Unlock()
	time.Sleep(time.Until(until))
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
	return l.ReaderAt.ReadAt(p, off)
}

// A thousand frames from a server 50 ms away take at most 1.2 times the time of their bytes, in few requests at a time.
func TestManyFramesFromAfar(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	frames := make([]Frame, 1000)
	content := make([]byte, 4096)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range frames {
		rng.Read(content)
		at := int64(len(file))
		file = enc.EncodeAll(content, file)
		frames[i] = Frame{First: i, Count: 1, At: at, Packed: int64(len(file)) - at, Length: 4096}
	}
	for _, budget := range []int64{0, int64(len(file)) / 4} {
		for _, rate := range []int{500_000, 2_000_000, 10_000_000} {
			synctest.Test(t, func(t *testing.T) {
				l := &link{ReaderAt: bytes.NewReader(file), trip: 50 * time.Millisecond, rate: rate}
				start := time.Now()
				r, err := new(Table).NewReader(t.Context(), Source{
					File: l, Old: bytes.NewReader(nil), Frames: frames, Budget: budget, Worth: func(f Frame) int64 { return 20 * f.Packed },
				})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				n := 0
				for g := r.Next(); g != nil; g = r.Next() {
					if g.Err != nil {
						t.Fatal(g.Err)
					}
					n++
				}
				took := time.Since(start)
				least := l.trip + time.Duration(len(file))*time.Second/time.Duration(rate)
				if n != len(frames) || took > least*12/10 || l.most > batches {
					t.Errorf("%d bytes a second, budget %d: %d frames in %v and %d requests, %d at a time; their bytes take %v",
						rate, budget, n, took, l.n, l.most, least)
				}
			})
		}
	}
}
