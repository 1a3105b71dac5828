package source

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// resource is what the answers say of a file. All must say the same.
type resource struct {
	known    bool
	size     int64  // bytes, -1 unknown
	etag     string // "" none
	modified string // Last-Modified, "" none
	ranges   bool   // the server says that it serves ranges
}

// validator is what If-Range may hold: a strong entity tag, else the date (RFC 9110, section 13.1.5).
func (r *resource) validator() string {
	if r.etag != "" && !strings.HasPrefix(r.etag, "W/") {
		return r.etag
	}
	if r.etag == "" {
		return r.modified
	}
	return ""
}

// accept judges an answer to a request for the bytes from first to end, exclusive; end is -1 for all that
// follow. whole is whether no range was asked for; with probe, the file may end before end.
func (r *resource) accept(resp *http.Response, first, end int64, whole, probe bool) error {
	switch status := resp.StatusCode; {
	case status == http.StatusOK && !whole:
		if r.known {
			return refusef("the file has changed, or the server serves no ranges: it answers a request for the rest with the whole file (200)")
		}
		return refusef("the server serves no ranges: it answers with the whole file (200)")
	case status == http.StatusRequestedRangeNotSatisfiable:
		return refusef("the file has changed: it has no byte %d (416)", first)
	case status == http.StatusPartialContent && whole:
		return refusef("the server answers with a part (206) that was not asked for")
	case status != http.StatusOK && status != http.StatusPartialContent:
		return &refusal{status: status, reason: fmt.Sprintf("the server answers %s", resp.Status)}
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return refusef("the server has compressed the file again (Content-Encoding %.40q), although it must not", coding)
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch kind {
	case "text/html", "application/xhtml+xml":
		return refusef("the server answers with a web page (%s), not with the file; a login or an error page?", kind)
	case "multipart/byteranges":
		return refusef("the server answers with several parts, although one was asked for")
	}
	now := resource{known: true, size: resp.ContentLength, etag: resp.Header.Get("ETag"), modified: resp.Header.Get("Last-Modified"), ranges: resp.Header.Get("Accept-Ranges") == "bytes"}
	if !whole {
		now.ranges = true
		var err error
		if now.size, err = contentRange(resp, first, end, probe); err != nil {
			return err
		}
	}
	return r.update(now)
}

// update compares two answers, and keeps what is known of the file.
func (r *resource) update(now resource) error {
	if r.known {
		switch {
		case r.etag != now.etag:
			return refusef("the file has changed: its ETag was %.80q and is %.80q", r.etag, now.etag)
		case r.etag == "" && r.modified != now.modified:
			return refusef("the file has changed: its date was %.80q and is %.80q", r.modified, now.modified)
		case r.size >= 0 && now.size >= 0 && r.size != now.size:
			return refusef("the file has changed: it had %d bytes and has %d", r.size, now.size)
		}
		now.ranges = now.ranges || r.ranges
		now.size = max(now.size, r.size)
	}
	*r = now
	return nil
}

// contentRange checks that a part is the one that was asked for, and returns the size of the file, -1 when the
// server does not know it, which is refused of a probe.
func contentRange(resp *http.Response, first, end int64, probe bool) (size int64, err error) {
	text := resp.Header.Get("Content-Range")
	wrong := refusef("the server answers with the part %.80q, asked for was the one from byte %d", text, first)
	span, total, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	a, b, isSpan := strings.Cut(span, "-")
	from, errA := strconv.ParseUint(a, 10, 62)
	to, errB := strconv.ParseUint(b, 10, 62)
	if !ok || !isSpan || errA != nil || errB != nil || !strings.HasPrefix(text, "bytes ") || int64(from) != first || to < from {
		return 0, wrong
	}
	size = -1
	if total != "*" {
		n, err := strconv.ParseUint(total, 10, 62)
		if err != nil || n <= to {
			return 0, wrong
		}
		size = int64(n)
	}
	if probe && size > 0 {
		end = min(end, size)
	}
	switch {
	case probe && size < 0:
		return 0, refusef("the server serves a part (%.80q) of a file whose size it does not know", text)
	case end >= 0 && int64(to)+1 != end, end < 0 && size >= 0 && int64(to)+1 != size:
		return 0, wrong
	case resp.ContentLength >= 0 && resp.ContentLength != int64(to-from)+1:
		return 0, refusef("the server announces %d bytes for the part %.80q", resp.ContentLength, text)
	}
	return size, nil
}
