package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
)

// A RemoteFile is a file on a server that is read at any place, by range requests. ReadAt may be called from several goroutines at a time.
type RemoteFile struct {
	io.ReaderAt
	size   int64
	cancel context.CancelFunc
}

// Size returns the size in bytes.
func (f *RemoteFile) Size() int64 { return f.size }

// Close ends the requests under way.
func (f *RemoteFile) Close() error { f.cancel(); return nil }

// OpenBeside opens the file beside the one at an http:// or https:// address whose escaped name has ext appended. It asks the server for the first
// byte. An error that wraps [os.ErrNotExist] means that the server has none, or refuses it; others are a [FetchError], also for a server without
// ranges.
func (c *Client) OpenBeside(ctx context.Context, name, ext string) (*RemoteFile, error) {
	u, err := httpURL(name)
	if err != nil {
		return nil, err
	}
	if u, err = withPath(u, u.EscapedPath()+ext); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &ranges{ctx: ctx, c: c, url: u, res: resource{size: -1}}
	if err := r.first(); err != nil {
		cancel()
		return nil, err
	}
	return &RemoteFile{ReaderAt: r, size: r.res.size, cancel: cancel}, nil
}

// ranges reads a file on a server, with one request for each ReadAt.
type ranges struct {
	ctx context.Context
	c   *Client
	url *url.URL
	res resource // by the first answer; requests have copies
}

// first asks for the first byte, and learns the size.
func (r *ranges) first() error {
	s := r.c.newStream(r.ctx, r.url, &r.res, 0, 1)
	s.parts = true
	defer s.Close()
	_, err := io.ReadFull(s, make([]byte, 1))
	switch e, ok := errors.AsType[*FetchError](err); {
	case ok && e.Status >= 400 && e.Status < 500 && !isBusy(e.Status):
		return fmt.Errorf("%w: %w", os.ErrNotExist, err)
	case err != nil:
		return err
	case r.res.whole || r.res.size < 0:
		return s.failure(errNoRanges)
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (r *ranges) ReadAt(p []byte, off int64) (int, error) {
	end := min(off+int64(len(p)), r.res.size)
	if off >= end {
		return 0, io.EOF
	}
	res := r.res
	s := r.c.newStream(r.ctx, r.url, &res, off, end)
	s.parts = true
	defer s.Close()
	n, err := io.ReadFull(s, p[:end-off])
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}
