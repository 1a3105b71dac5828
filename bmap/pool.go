package bmap

import (
	"context"
	"hash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// chunkSize is how many bytes a worker reads at once: few system calls, and the data is hashed from the CPU's cache.
const chunkSize = 256 << 10

// A worker is the state of one goroutine of forEach.
type worker struct {
	buf  []byte
	hash hash.Hash
}

// forEach calls do for every index below n, in ascending order of start, on three goroutines for each CPU: some hash while
// others wait for the medium. It returns when all have returned: with the first error, or with the cause of ctx's end, even if that came
// last. Without newHash the workers have no hash.
func forEach(ctx context.Context, n int, newHash func() hash.Hash, do func(ctx context.Context, w *worker, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(3*runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			w := worker{buf: make([]byte, chunkSize)}
			if newHash != nil {
				w.hash = newHash()
			}
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := do(ctx, &w, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// read passes the bytes of the span to use, in pieces. A short input is io.ErrUnexpectedEOF. It returns the offset
// at which an error of the reader happened.
func (w *worker) read(ctx context.Context, r io.ReaderAt, s Span, use func(offset int64, data []byte) error) (at int64, err error) {
	for offset, end := s.Offset, s.Offset+s.Length; offset < end; {
		if ctx.Err() != nil {
			return offset, context.Cause(ctx)
		}
		buf := w.buf[:min(int64(len(w.buf)), end-offset)]
		n, err := r.ReadAt(buf, offset)
		if n < len(buf) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return offset + int64(n), err
		}
		if err := use(offset, buf); err != nil {
			return offset, err
		}
		offset += int64(n)
	}
	return 0, nil
}

// sum returns the digest of the span, valid until the worker's next use.
func (w *worker) sum(ctx context.Context, r io.ReaderAt, s Span, m *meter) (digest []byte, at int64, err error) {
	w.hash.Reset()
	at, err = w.read(ctx, r, s, func(_ int64, data []byte) error {
		w.hash.Write(data)
		m.add(int64(len(data)))
		return nil
	})
	return w.hash.Sum(nil), at, err
}

// A meter serializes calls of the caller's progress function; done never falls.
type meter struct {
	mu          sync.Mutex
	done, total int64
	report      func(done, total int64)
}

func (m *meter) add(n int64) {
	if m.report == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	m.report(m.done, m.total)
}
