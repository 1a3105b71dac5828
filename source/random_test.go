package source_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"updater/source"
)

// A file beside an image is read at any place, several parts at a time; one that the server does not have is os.ErrNotExist.
func TestOpenBeside(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	ranges := true
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/private.img.x":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path != "/a b.img.x":
			http.NotFound(w, r)
		case !ranges:
			_, _ = w.Write(data)
		default:
			http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(data))
		}
	}))
	defer web.Close()
	c, err := source.NewClient(source.HTTPOptions{GiveUp: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"/none.img", "/private.img"} {
		if _, err := c.OpenBeside(t.Context(), web.URL+name, ".x"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("OpenBeside(%s): %v; want os.ErrNotExist", name, err)
		}
	}
	f, err := c.OpenBeside(t.Context(), web.URL+"/a%20b.img", ".x")
	if err != nil || f.Size() != int64(len(data)) {
		t.Fatalf("OpenBeside: %v", err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			p := make([]byte, 1000)
			at := i * 30_001
			if n, err := f.ReadAt(p, int64(at)); err != nil || !bytes.Equal(p[:n], data[at:at+1000]) {
				t.Errorf("ReadAt(%d) = %d, %v", at, n, err)
			}
		})
	}
	group.Wait()
	if n, err := f.ReadAt(make([]byte, 100), int64(len(data)-10)); n != 10 || err != io.EOF {
		t.Errorf("ReadAt at the end = %d, %v; want 10, EOF", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after Close: %v", err)
	}
	ranges = false
	if _, err := c.OpenBeside(t.Context(), web.URL+"/a%20b.img", ".x"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a server without ranges: %v", err)
	}
}
