package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Open opens the image at an http:// or https:// address. An interrupted download is resumed. ctx ends it. The caller closes the
// image. Errors: [FetchError], [CorruptError], [ContainerError].
func (c *Client) Open(ctx context.Context, name string, l Limits) (*Image, error) {
	s, err := c.stream(ctx, name)
	if err != nil {
		return nil, err
	}
	s.probe = true
	img := &Image{name: redact(s.url), in: &input{r: s}, closer: s, size: -1, res: s.res}
	br := bufio.NewReaderSize(img.in, bufferSize)
	if err := start(img, s, br, l); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if img.codec == "zstd" {
		img.remote = &remote{ctx: ctx, c: c, url: s.url, res: s.res, limit: img.limits.Frames}
	}
	if img.codec == raw && img.size >= 0 {
		img.jump = func(n int64) error { return jumpHTTP(img, s, br, n) }
	}
	return img, nil
}

func start(img *Image, s *stream, br *bufio.Reader, l Limits) error {
	head, err := br.Peek(headLen)
	if err != nil && err != io.EOF {
		return err // it names the file
	}
	img.size = s.res.size
	if isHTML(head) {
		return s.failure(errWebPage)
	}
	if inner := uncoded(s.res, head, br); inner != nil {
		if head, err = inner.Peek(headLen); err != nil && err != io.EOF {
			return img.failure(err)
		}
		s.res.ranges = false // they refer to the coded bytes
		img.size = -1
		br = inner
	}
	return img.start(head, br, l)
}

// errWebPage refuses a file by its first bytes.
var errWebPage = refusef("the server answers with a web page instead of the file; is it a login or an error page?")

// uncoded returns a reader of the file without the content coding that a server or a proxy has applied on the fly, although requests
// ask for none. It returns nil if the bytes are those of the file: if they are not gzip, or the file itself is gzip, which is so
// unless an image in another container, or a text, is inside.
func uncoded(res *resource, head []byte, br *bufio.Reader) *bufio.Reader {
	if res.coding != "gzip" && res.coding != "x-gzip" || !bytes.HasPrefix(head, []byte(gzipMagic)) {
		return nil
	}
	first, err := br.Peek(min(br.Size(), 32<<10))
	if err != nil && err != io.EOF && len(first) == 0 {
		return nil
	}
	z, err := gzip.NewReader(bytes.NewReader(first))
	if err != nil {
		return nil
	}
	inside := make([]byte, headLen)
	n, _ := io.ReadFull(z, inside)
	if found, err := detect(inside[:n]); err != nil || found.name == raw {
		return nil // gzip is the container, or makes no difference
	}
	outer, err := gzip.NewReader(br)
	if err != nil {
		return nil
	}
	return bufio.NewReaderSize(outer, bufferSize)
}

// jumpHTTP skips bytes of a raw image: those in the buffer, then the rest without fetching it if possible.
func jumpHTTP(img *Image, s *stream, br *bufio.Reader, n int64) error {
	img.offset += n
	buffered := min(n, int64(br.Buffered()))
	_, err := br.Discard(int(buffered))
	n -= buffered
	if err == nil && n > 0 {
		if s.jump(n) {
			img.in.read.Add(n)
			return nil
		}
		_, err = io.CopyN(io.Discard, br, n)
	}
	if err != nil {
		img.err = img.failure(noEOF(err))
	}
	return img.err
}

// isHTML reports whether a file begins as a web page does.
func isHTML(head []byte) bool {
	text := strings.ToLower(string(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")))
	for _, tag := range []string{"<!doctype html", "<html", "<head", "<body", "<script", "<title"} {
		if strings.HasPrefix(text, tag) {
			return true
		}
	}
	return false
}

// fetchTries is how often a document that changes during the download is downloaded.
const fetchTries = 3

// Fetch downloads a document of at most limit bytes. It does not combine two versions of it, unless the server claims on every try
// that the document has changed. Errors: [FetchError].
func (c *Client) Fetch(ctx context.Context, name string, limit int64) (data []byte, err error) {
	for range fetchTries {
		s, err := c.stream(ctx, name)
		if err != nil {
			return nil, err
		}
		data, err = fetch(s, limit)
		if err != nil {
			return nil, err
		}
		if !s.res.changed {
			break
		}
	}
	return data, nil
}

func fetch(s *stream, limit int64) ([]byte, error) {
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err != nil {
		return nil, err
	}
	if res := s.res; (res.coding == "gzip" || res.coding == "x-gzip") && bytes.HasPrefix(data, []byte(gzipMagic)) && int64(len(data)) <= limit {
		if data, err = gunzip(data, limit); err != nil {
			return nil, s.failure(refusef("the server has compressed the document (Content-Encoding: gzip), and it cannot be decompressed: %v", err))
		}
	}
	switch {
	case int64(len(data)) > limit:
		return nil, s.failure(refusef("the document is longer than %d bytes", limit))
	case isHTML(data[:min(len(data), headLen)]):
		return nil, s.failure(errWebPage)
	}
	return data, nil
}

// gunzip decompresses a document to at most limit+1 bytes.
func gunzip(data []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, limit+1))
}

func (c *Client) stream(ctx context.Context, name string) (*stream, error) {
	u, err := httpURL(name)
	if err != nil {
		return nil, err
	}
	return c.newStream(ctx, u, &resource{size: -1}, 0, -1), nil
}

func httpURL(name string) (*url.URL, error) {
	u, ok, err := ParseURL(name)
	if err == nil && !ok {
		err = fmt.Errorf("%q is not an http:// or https:// address", name)
	}
	return u, err
}

// FindBmap downloads the bmap beside an image, of at most limit bytes. It tries the names of [FindBmap] in order, and calls before with
// each address before it asks for it; nil calls nothing. A name the server refuses counts as absent: many servers answer 403 for a
// file that does not exist. Errors: [FetchError], of status 404 if there is no bmap, and those of before.
func (c *Client) FindBmap(ctx context.Context, image string, limit int64, before func(address string) error) (name string, data []byte, err error) {
	u, err := httpURL(image)
	if err != nil {
		return "", nil, err
	}
	var tried []string
	for dir, base := splitPath(u); base != ""; {
		address, err := withPath(u, dir+base+".bmap")
		if err == nil && before != nil {
			err = before(address.String())
		}
		if err != nil {
			return "", nil, err
		}
		data, found, err := c.probe(ctx, u, dir+base+".bmap", limit)
		if found != "" || err != nil {
			return found, data, err
		}
		tried = append(tried, base+".bmap")
		ext := path.Ext(base)
		if ext == "" || ext == base {
			break
		}
		base = strings.TrimSuffix(base, ext)
	}
	missing := &refusal{status: http.StatusNotFound, reason: "no bmap beside the image; tried " + strings.Join(tried, ", ")}
	return "", nil, &FetchError{Op: "fetching", URL: redact(u), Status: missing.status, Err: missing}
}

// FindSignature downloads the detached signature of a bmap, of at most limit bytes. It tries the names of [FindSignature] in order;
// found reports whether there is one. Errors: [FetchError].
func (c *Client) FindSignature(ctx context.Context, bmap string, limit int64) (data []byte, found bool, err error) {
	u, err := httpURL(bmap)
	if err != nil {
		return nil, false, err
	}
	for _, ext := range []string{".asc", ".sig"} {
		data, name, err := c.probe(ctx, u, u.EscapedPath()+ext, limit)
		if name != "" || err != nil {
			return data, name != "", err
		}
	}
	return nil, false, nil
}

// probe downloads a document that may not exist, at another escaped path beside u. name is its address, or "" if it is absent.
func (c *Client) probe(ctx context.Context, u *url.URL, escaped string, limit int64) (data []byte, name string, err error) {
	beside, err := withPath(u, escaped)
	if err != nil {
		return nil, "", err
	}
	name = beside.String()
	data, err = c.Fetch(ctx, name, limit)
	e, refused := errors.AsType[*FetchError](err)
	switch {
	case err == nil:
		return data, name, nil
	case !refused || !errors.Is(err, errWebPage) && (e.Status < 400 || e.Status >= 500 || isBusy(e.Status)):
		return nil, "", err
	case e.Status != http.StatusNotFound && e.Status != http.StatusGone:
		c.o.Warn("%v; assuming that the file does not exist", err)
	}
	return nil, "", nil
}
