package source

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// resource describes a file by the answers so far. The streams of an image share it.
type resource struct {
	size     int64  // bytes, -1 unknown
	etag     string // "" none
	modified string // Last-Modified, "" none
	coding   string // Content-Encoding of the last answer
	ranges   bool   // the server serves ranges, or claims to
	changed  bool   // ETag and date of two answers differ

	// How far requests have been simplified, since the server did not understand them otherwise.
	noIfRange bool // ranges without If-Range
	whole     bool // no ranges
}

// validator returns the value of If-Range: a strong entity tag, else the date (RFC 9110, section 13.1.5); "" for none.
func (r *resource) validator() string {
	switch {
	case r.noIfRange:
		return ""
	case len(r.etag) > 2 && strings.HasPrefix(r.etag, `"`) && strings.HasSuffix(r.etag, `"`):
		return r.etag
	case r.etag == "":
		return r.modified
	}
	return ""
}

// update compares an answer with the previous ones. Another size means another file. Another ETag or date does not: each node behind a
// load balancer may have its own, and the signed map detects wrong bytes.
func (r *resource) update(resp *http.Response, size int64) error {
	if r.size >= 0 && size >= 0 && r.size != size {
		return refusef("the file has changed: its size was %d bytes and is %d", r.size, size)
	}
	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	known := r.etag != "" || r.modified != ""
	if known && (etag != r.etag || etag == "" && modified != r.modified) {
		r.changed, r.noIfRange = true, true
	}
	r.etag, r.modified, r.size = etag, modified, max(r.size, size)
	r.coding = strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	r.ranges = r.ranges || resp.Header.Get("Accept-Ranges") == "bytes"
	return nil
}

// asked describes a request.
type asked struct {
	ranged  bool // a range
	ifRange bool // under the condition that the file has not changed
	probe   bool // the first bytes, whether as a part or as the beginning of the whole file
}

// errAgain asks for another request at once, in a simpler form.
var errAgain = errors.New("the server does not understand the request")

// judge decides whether the body of an answer can be used, and sets pos and until if it can.
func (s *stream) judge(resp *http.Response, a asked) error {
	switch status := resp.StatusCode; {
	case status == http.StatusOK, status == http.StatusNonAuthoritativeInfo:
		return s.judgeWhole(resp, a)
	case status == http.StatusPartialContent:
		return s.judgePart(resp, a)
	case status == http.StatusRequestedRangeNotSatisfiable && s.ends(resp):
		return nil
	case a.ranged && dislikesRange(status):
		return s.simplify(a, refuseStatus(status))
	case isBusy(status):
		return &busyError{status: status, after: retryAfter(resp)}
	default:
		return refuseStatus(status)
	}
}

// judgeWhole judges an answer with the whole file.
func (s *stream) judgeWhole(resp *http.Response, a asked) error {
	if err := s.res.update(resp, resp.ContentLength); err != nil {
		return err
	}
	if a.ranged && !a.probe {
		if err := s.simplify(a, errNoRanges); err != errAgain || a.ifRange {
			return err
		}
		// The request without a range would get this answer as well.
	}
	s.pos, s.until = 0, -1
	return nil
}

// errNoRanges ends the streams that need ranges.
var errNoRanges = refusef("the server serves no ranges")

// judgePart judges an answer with a part of the file. The part begins at the requested offset, or at the start of the file, but
// may be shorter or longer than requested.
func (s *stream) judgePart(resp *http.Response, a asked) error {
	from, to, size, ok := contentRange(resp.Header.Get("Content-Range"))
	length := resp.ContentLength
	ok = ok && length <= to-from
	if ok && length >= 0 {
		to = from + length
	}
	if !ok || a.ranged && from != s.next || !a.ranged && from != 0 || to <= s.next {
		return s.simplify(a, refusef("the server answers with the part %.80q of %d bytes, expected the one from byte %d",
			resp.Header.Get("Content-Range"), length, s.next))
	}
	if err := s.res.update(resp, size); err != nil {
		return err
	}
	s.res.ranges = true
	s.pos, s.until = from, to
	return nil
}

// simplify prepares a simpler request and returns errAgain, or final if there is none.
func (s *stream) simplify(a asked, final error) error {
	switch {
	case a.ifRange:
		s.res.noIfRange = true
	case a.ranged && !s.parts:
		s.res.whole = true
	default:
		return final
	}
	return errAgain
}

// ends reports whether a 416 means that the file ends at s.next, which only counts while its size is unknown.
func (s *stream) ends(resp *http.Response) bool {
	_, text, _ := strings.Cut(resp.Header.Get("Content-Range"), "*/")
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		size = s.next // the status alone means it
	}
	if s.res.size >= 0 || size != s.next || s.next == 0 && err != nil {
		return false
	}
	s.res.size = size
	s.pos, s.until = s.next, s.next
	return true
}

// contentRange parses "bytes FIRST-LAST/SIZE" (RFC 9110, section 14.4), and the spellings of sloppy servers with "=" or without
// a size. to is exclusive; size is -1 if unknown.
func contentRange(text string) (from, to, size int64, ok bool) {
	text, isBytes := strings.CutPrefix(strings.ToLower(text), "bytes")
	span, total, hasSize := strings.Cut(strings.Trim(text, " =:"), "/")
	first, last, isSpan := strings.Cut(span, "-")
	a, errA := strconv.ParseUint(first, 10, 62)
	b, errB := strconv.ParseUint(last, 10, 62)
	size = -1
	if hasSize && total != "*" {
		n, err := strconv.ParseUint(total, 10, 62)
		if err != nil || n <= b {
			return 0, 0, 0, false
		}
		size = int64(n)
	}
	ok = isBytes && isSpan && errA == nil && errB == nil && b >= a
	return int64(a), int64(b) + 1, size, ok
}

// busyError is an answer that asks for a retry.
type busyError struct {
	status int
	after  time.Duration
}

func (e *busyError) Error() string { return refuseStatus(e.status).Error() }

// retryAfter returns the delay the server asks for, as seconds or as a date (RFC 9110, section 10.2.3).
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	now, errNow := http.ParseTime(resp.Header.Get("Date"))
	if err != nil || errNow != nil {
		return 0
	}
	return max(0, at.Sub(now))
}
