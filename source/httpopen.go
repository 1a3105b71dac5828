package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Open opens the image at an http:// or https:// address. A broken transfer goes on where it was. ctx ends it.
// The caller closes the image. Errors: [FetchError].
func (c *Client) Open(ctx context.Context, name string, l Limits) (*Image, error) {
	s, err := c.stream(ctx, name)
	if err != nil {
		return nil, err
	}
	s.probe = true
	img := &Image{name: s.url.Redacted(), in: &input{r: s}, closer: s, size: -1}
	br := bufio.NewReaderSize(img.in, bufferSize)
	err = c.begin(img, s, br, l)
	if err != nil {
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

func (c *Client) begin(img *Image, s *stream, br *bufio.Reader, l Limits) error {
	head, err := br.Peek(512)
	if err != nil && err != io.EOF {
		return err // it names the file
	}
	img.size = s.res.size
	if strings.HasPrefix(http.DetectContentType(head), "text/html") {
		return s.failure(refusef("it is a web page, not an image; a login or an error page?"))
	}
	return img.start(head, br, l)
}

// jumpHTTP moves on in a raw image: through the buffer, then past what need not be fetched.
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

// Fetch gets a whole file of at most limit bytes. Errors: [FetchError].
func (c *Client) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	s, err := c.stream(ctx, name)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	data, err := io.ReadAll(io.LimitReader(s, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = s.failure(refusef("it is longer than %d bytes", limit))
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func (c *Client) stream(ctx context.Context, name string) (*stream, error) {
	u, ok, err := ParseURL(name)
	if err == nil && !ok {
		err = fmt.Errorf("%s is no http:// or https:// address", name)
	}
	if err != nil {
		return nil, err
	}
	return c.newStream(ctx, u, &resource{size: -1}, 0, -1), nil
}

// FindBmap fetches the bmap beside an image, of at most limit bytes, trying the names of [FindBmap] in order.
func (c *Client) FindBmap(ctx context.Context, image string, limit int64) (name string, data []byte, err error) {
	u, _, err := ParseURL(image)
	if err != nil {
		return "", nil, err
	}
	var tried []string
	dir, base := path.Split(u.Path)
	for {
		name := withPath(u, dir+base+".bmap")
		data, found, err := c.probe(ctx, name, limit)
		if found || err != nil {
			return name, data, err
		}
		tried = append(tried, base+".bmap")
		ext := path.Ext(base)
		if ext == "" || ext == base {
			return "", nil, fmt.Errorf("no bmap beside %s; tried %s", u.Redacted(), strings.Join(tried, ", "))
		}
		base = strings.TrimSuffix(base, ext)
	}
}

// FindSignature fetches the detached signature of a bmap, as [FindSignature] does; found is whether there is one.
func (c *Client) FindSignature(ctx context.Context, bmap string, limit int64) (data []byte, found bool, err error) {
	u, _, err := ParseURL(bmap)
	for _, ext := range []string{".asc", ".sig"} {
		if found || err != nil {
			break
		}
		data, found, err = c.probe(ctx, withPath(u, u.Path+ext), limit)
	}
	return data, found, err
}

// probe fetches a file that may not be there.
func (c *Client) probe(ctx context.Context, name string, limit int64) (data []byte, found bool, err error) {
	data, err = c.Fetch(ctx, name, limit)
	if e, ok := errors.AsType[*FetchError](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// withPath is an address beside another one, with the same query.
func withPath(u *url.URL, path string) string {
	beside := *u
	beside.Path, beside.RawPath = path, ""
	return beside.String()
}
