package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxRetryDelay is the longest wait between two requests.
const maxRetryDelay = 30 * time.Second

// jumpAtLeast is how many bytes are worth a new request rather than being read and dropped.
const jumpAtLeast = 1 << 20

// probeBytes is how much the first request for an image asks for: what tells its codec. Then a plan can be made
// before the server has sent more than that.
const probeBytes = 64 << 10

// stream reads the bytes of a file from next up to end over as many requests as that takes. When the link
// breaks, or the server is silent, it asks for the rest on a new connection. It is not safe for concurrent use.
type stream struct {
	c      *Client
	url    *url.URL
	ctx    context.Context
	cancel context.CancelFunc
	res    *resource
	next   int64 // the next byte of the file
	end    int64 // exclusive; -1 the end of the file
	probe  bool  // the first request is for probeBytes, and may be answered with the whole file

	body    io.ReadCloser   // nil between two requests
	until   int64           // where the request under way ends, -1 at the end of the file
	request context.Context // of the request under way
	abandon context.CancelCauseFunc
	watch   *time.Timer // abandons the request when it fires
	failed  int         // requests since the last byte
	last    time.Time   // when the last byte came
	err     error       // sticky
}

// newStream asks for nothing yet. res is what is known of the file, and learns more.
func (c *Client) newStream(ctx context.Context, u *url.URL, res *resource, next, end int64) *stream {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, errTimeout)
	return &stream{c: c, url: u, ctx: ctx, cancel: cancel, res: res, next: next, end: end, last: time.Now()}
}

// Read returns io.EOF only at end, or at the end of the file that the server has said.
func (s *stream) Read(p []byte) (int, error) {
	for s.err == nil {
		if s.complete() {
			s.finish(io.EOF)
			break
		}
		n, err := s.try(p)
		if n > 0 {
			s.next, s.failed, s.last = s.next+int64(n), 0, time.Now()
			if s.next > s.c.o.MaxSize {
				s.finish(s.failure(refusef("it is longer than the %d bytes allowed", s.c.o.MaxSize)))
				break
			}
			return n, nil
		}
		if err != nil {
			s.retry(err)
		}
	}
	return 0, s.err
}

// try reads from the request under way, or begins one. An error ends the request.
func (s *stream) try(p []byte) (n int, err error) {
	if s.body == nil {
		if err := s.begin(); err != nil {
			return 0, err
		}
	}
	s.watch.Reset(s.c.o.Stall)
	n, err = s.body.Read(p)
	s.watch.Stop()
	if n > 0 || err == nil {
		return n, nil // an error beside bytes comes again
	}
	if cause := context.Cause(s.request); cause != nil {
		err = cause
	}
	s.hangUp()
	if err == io.EOF {
		if s.res.size < 0 && s.until < 0 {
			s.res.size = s.next
		}
		if s.complete() || s.next == s.until {
			return 0, nil
		}
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// complete says whether every byte has come.
func (s *stream) complete() bool {
	if s.end < 0 {
		return s.res.size >= 0 && s.next == s.res.size
	}
	return s.next == s.end
}

// begin sends the request for what is missing, and judges its answer.
func (s *stream) begin() (err error) {
	ctx, abandon := context.WithCancelCause(s.ctx)
	s.request, s.abandon = ctx, abandon
	s.watch = time.AfterFunc(s.c.o.Stall, func() { abandon(errStalled) })
	defer func() {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			s.hangUp()
		}
	}()
	req, err := s.c.request(ctx, s.url)
	if err != nil {
		return err
	}
	s.until = s.end
	if s.probe {
		s.until = probeBytes
	}
	whole := s.next == 0 && s.until < 0
	if !whole {
		last := ""
		if s.until >= 0 {
			last = strconv.FormatInt(s.until-1, 10)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", s.next, last))
		if v := s.res.validator(); v != "" {
			req.Header.Set("If-Range", v)
		}
	}
	resp, err := s.c.http.Do(req)
	if err != nil {
		return noEOF(plain(err)) // a connection that ends before an answer is no end of the file
	}
	s.body = resp.Body
	if isBusy(resp.StatusCode) {
		return &busyError{status: resp.Status, after: retryAfter(resp)}
	}
	if s.probe && resp.StatusCode == http.StatusOK {
		whole, s.until = true, -1 // a server without ranges
	}
	if err := s.res.accept(resp, s.next, s.until, whole, s.probe); err != nil {
		return err
	}
	s.probe = false
	if s.res.size > s.c.o.MaxSize {
		return refusef("it has %d bytes, allowed are %d", s.res.size, s.c.o.MaxSize)
	}
	return nil
}

// busyError is an answer that asks for another try.
type busyError struct {
	status string
	after  time.Duration
}

func (e *busyError) Error() string { return "the server answers " + e.status }

// retryAfter is how long the server asks to be left alone, where it says so in seconds.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// retry waits before the next request, or ends the stream.
func (s *stream) retry(err error) {
	switch {
	case s.ctx.Err() != nil:
		s.finish(s.failure(context.Cause(s.ctx)))
		return
	case isFinal(err):
		s.finish(s.failure(err))
		return
	}
	s.c.http.CloseIdleConnections() // an address may have changed: nothing of the old link is used again
	delay := min(s.c.o.RetryDelay<<min(s.failed, 20), maxRetryDelay)
	delay += rand.N(delay/4 + 1)
	if busy, ok := errors.AsType[*busyError](err); ok {
		delay = max(delay, busy.after)
	}
	s.failed++
	if left := time.Until(s.last.Add(s.c.o.GiveUp)); delay > left {
		s.finish(s.failure(fmt.Errorf("no byte came for %s, in %d requests: %w", s.c.o.GiveUp, s.failed, err)))
		return
	}
	s.c.o.Warn("%v; asking again in %s", s.failure(err), delay.Round(100*time.Millisecond))
	select {
	case <-time.After(delay):
	case <-s.ctx.Done():
	}
}

// failure names the file.
func (s *stream) failure(err error) error {
	e := &FetchError{Op: "fetching", URL: s.url.Redacted(), Offset: s.next, Err: err}
	if r, ok := errors.AsType[*refusal](err); ok {
		e.Status = r.status
	}
	return e
}

// hangUp ends the request under way.
func (s *stream) hangUp() {
	if s.abandon == nil {
		return
	}
	s.watch.Stop()
	s.abandon(nil)
	if s.body != nil {
		_ = s.body.Close()
	}
	s.body, s.abandon = nil, nil
}

func (s *stream) finish(err error) {
	s.hangUp()
	s.cancel()
	s.err = err
}

// jump moves n bytes on without asking for them, where that is worth a new request and the server can.
func (s *stream) jump(n int64) (done bool) {
	if s.err != nil || n < jumpAtLeast || !s.res.ranges || s.res.size >= 0 && n > s.res.size-s.next {
		return false
	}
	s.hangUp()
	s.next += n
	return true
}

// Close ends the request under way. Close again does nothing.
func (s *stream) Close() error {
	if s.err == nil || s.err == io.EOF {
		s.finish(s.failure(errors.New("it is closed")))
	}
	return nil
}
