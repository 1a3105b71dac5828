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

// maxRetryDelay is the longest delay between two requests, unless the server asks for a longer one.
const maxRetryDelay = 30 * time.Second

// jumpAtLeast is the smallest skip, in bytes, for which a new request is cheaper than reading.
const jumpAtLeast = 1 << 20

// probeBytes is the length of the first range requested of an image. It suffices to detect the codec, and leaves time for a plan
// before the server has sent more.
const probeBytes = 64 << 10

// stream reads the bytes of a file from next to end, over as many requests as that takes. It is not safe for concurrent use.
type stream struct {
	c      *Client
	url    *url.URL
	ctx    context.Context
	cancel context.CancelFunc
	res    *resource
	next   int64 // offset of the next byte to return
	end    int64 // exclusive; -1 is the end of the file
	probe  bool  // the first request asks for probeBytes
	parts  bool  // give up rather than download the file from the start

	body    io.ReadCloser   // nil between requests
	pos     int64           // offset of the body's next byte; bytes before next are dropped
	until   int64           // end of the body, exclusive; -1 is the end of the file
	request context.Context // of the current request
	abandon context.CancelCauseFunc
	watch   *time.Timer // abandons the request when it fires
	failed  int         // requests since the last byte
	last    time.Time   // of the last byte
	rate    rate
	err     error // sticky
}

// newStream returns a stream for the bytes from next to end. It sends no request yet.
func (c *Client) newStream(ctx context.Context, u *url.URL, res *resource, next, end int64) *stream {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, errTimeout)
	return &stream{c: c, url: u, ctx: ctx, cancel: cancel, res: res, next: next, end: end, last: time.Now()}
}

// Read returns io.EOF only at end, or at the end of the file according to the server.
func (s *stream) Read(p []byte) (int, error) {
	started := time.Now()
	for s.err == nil {
		if s.complete() {
			s.finish(io.EOF)
			break
		}
		n, err := s.try(p)
		if s.next > s.c.o.MaxSize {
			s.finish(s.failure(refusef("the file is longer than the limit of %d bytes", s.c.o.MaxSize)))
			break
		}
		if err != nil {
			s.retry(err)
			continue
		}
		if slow := s.rate.check(s.c.o, time.Since(started)); slow != nil {
			s.finish(s.failure(slow))
			break
		}
		if n > 0 {
			s.failed, s.last = 0, time.Now()
			s.rate.waited += time.Since(started)
			return n, nil
		}
	}
	return 0, s.err
}

// rate measures the speed of a download while a reader waits for it.
type rate struct {
	waited time.Duration // in calls of Read that have returned
	bytes  int64
}

// check returns an error if the window of HTTPOptions.GiveUp is over and too few bytes came in it. now is the time since the
// call of Read began.
func (r *rate) check(o HTTPOptions, now time.Duration) error {
	if o.MinRate < 0 || r.waited+now < o.GiveUp {
		return nil
	}
	got := r.bytes
	*r = rate{waited: -now}
	if got == 0 {
		return nil // GiveUp ends that, with the cause
	}
	if least := int64(float64(o.MinRate) * o.GiveUp.Seconds()); got < least {
		return refusef("the server is too slow: %d bytes in %s, expected at least %d", got, o.GiveUp, least)
	}
	return nil
}

// try reads from the current request, or begins one. An error ends the request.
func (s *stream) try(p []byte) (n int, err error) {
	if s.body == nil {
		if err := s.begin(); err != nil {
			return 0, err
		}
	}
	n, err = s.read(p)
	switch {
	case n > 0:
		return n, nil // a read error comes again
	case err == nil:
		if s.until >= 0 && s.pos >= s.until {
			s.hangUp()
		}
		return 0, nil
	}
	if cause := context.Cause(s.request); cause != nil {
		err = cause
	}
	s.hangUp()
	if err != io.EOF {
		return 0, err
	}
	if s.res.size < 0 && s.until < 0 {
		if s.pos < s.next {
			return 0, refusef("the file has changed: it ends at %d, which is before the bytes that were read", s.pos)
		}
		s.res.size = s.pos
	}
	if s.complete() || s.pos == s.until {
		return 0, nil
	}
	return 0, io.ErrUnexpectedEOF
}

// read reads from the body and drops the bytes before next.
func (s *stream) read(p []byte) (n int, err error) {
	most := int64(len(p))
	if s.pos < s.next {
		most = min(most, s.next-s.pos)
	} else if s.end >= 0 {
		most = min(most, s.end-s.next)
	}
	if s.until >= 0 {
		most = min(most, s.until-s.pos)
	}
	if most == 0 {
		return 0, nil
	}
	s.watch.Reset(s.c.o.Stall)
	n, err = s.body.Read(p[:s.c.pace.Most(most)])
	s.watch.Stop()
	s.c.pace.Spend(s.ctx, n)
	s.pos += int64(n)
	s.rate.bytes += int64(n)
	if n == 0 || s.pos <= s.next {
		return 0, err
	}
	s.next = s.pos
	return n, err
}

// complete reports whether every byte has been returned.
func (s *stream) complete() bool {
	if s.end < 0 {
		return s.res.size >= 0 && s.next == s.res.size
	}
	return s.next == s.end
}

// begin sends the request for the missing bytes and judges the answer.
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
	req, err := s.c.request(ctx, http.MethodGet, s.url)
	if err != nil {
		return err
	}
	a := s.ask(req)
	resp, err := s.c.http.Do(req)
	if err != nil {
		return noEOF(plain(err)) // EOF before an answer is not the end of the file
	}
	s.body = resp.Body
	changed := s.res.changed
	if err := s.judge(resp, a); err != nil {
		return err
	}
	s.probe = false
	if s.res.changed && !changed {
		s.c.o.Warn("%v", s.failure(errors.New("the answers have different ETags or dates; continuing, since the signed map decides")))
	}
	if s.res.size > s.c.o.MaxSize {
		return refusef("the file has %d bytes, allowed are %d", s.res.size, s.c.o.MaxSize)
	}
	return nil
}

// ask adds the headers of a range request, unless the whole file is needed.
func (s *stream) ask(req *http.Request) (a asked) {
	end := s.end
	if s.probe {
		end = probeBytes
	}
	if s.res.whole || s.next == 0 && end < 0 {
		return a
	}
	last := ""
	if end >= 0 {
		last = strconv.FormatInt(end-1, 10)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%s", s.next, last))
	a.ranged, a.probe = true, s.probe
	if v := s.res.validator(); v != "" {
		req.Header.Set("If-Range", v)
		a.ifRange = true
	}
	return a
}

// retry waits before the next request, or ends the stream.
func (s *stream) retry(err error) {
	switch {
	case s.ctx.Err() != nil:
		s.finish(s.failure(context.Cause(s.ctx)))
		return
	case err == errAgain:
		return
	case isFinal(err):
		s.finish(s.failure(err))
		return
	}
	s.c.http.CloseIdleConnections() // the route may have changed; old connections would stall
	delay := min(s.c.o.RetryDelay<<min(s.failed, 20), maxRetryDelay)
	delay += rand.N(delay/4 + 1)
	if busy, ok := errors.AsType[*busyError](err); ok {
		delay = max(delay, busy.after)
	}
	s.failed++
	if left := time.Until(s.last.Add(s.c.o.GiveUp)); delay > left {
		how := ""
		if s.res.whole {
			how = " from the start, since the server serves no ranges"
		}
		s.finish(s.failure(fmt.Errorf("no new byte received for %s, in %d requests%s: %w", s.c.o.GiveUp, s.failed, how, err)))
		return
	}
	s.c.o.Warn("%v; retrying in %s", s.failure(err), delay.Round(100*time.Millisecond))
	select {
	case <-time.After(delay):
	case <-s.ctx.Done():
	}
}

// failure returns err with the address and the offset.
func (s *stream) failure(err error) error {
	e := &FetchError{Op: "fetching", URL: redact(s.url), Offset: s.next, Err: err}
	if r, ok := errors.AsType[*refusal](err); ok {
		e.Status = r.status
	} else if b, ok := errors.AsType[*busyError](err); ok {
		e.Status = b.status
	}
	return e
}

// hangUp ends the current request.
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

// jump skips n bytes without fetching them, if that is cheaper than reading them and the server serves ranges.
func (s *stream) jump(n int64) (done bool) {
	if s.err != nil || n < jumpAtLeast || !s.res.ranges || s.res.whole || s.res.size >= 0 && n > s.res.size-s.next {
		return false
	}
	s.hangUp()
	s.next += n
	return true
}

// move continues with the bytes from next to end, which come after those read so far. An answer with the whole file is kept.
func (s *stream) move(next, end int64) {
	if !s.res.whole {
		s.hangUp()
	}
	s.next, s.end = next, end
}

// Close ends the current request. Closing again does nothing.
func (s *stream) Close() error {
	if s.err == nil || s.err == io.EOF {
		s.finish(s.failure(errors.New("the image is closed")))
	}
	return nil
}
