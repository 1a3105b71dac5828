package source_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"updater/source"
)

// A download ends in time, within its limits and without a panic, whatever bytes a server answers with.
func FuzzHTTPAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.0 200 OK\r\n\r\nhello",
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\nhello",
		"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/*\r\n\r\nhello",
		"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x\r\n\r\n--x--",
		"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x08\r\n0\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 01 Jan 2200 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, answer []byte, image bool) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = conn.Write(answer)
				}
				conn.Close()
			}
		}()
		const most = 1 << 20
		o := source.HTTPOptions{RetryDelay: time.Millisecond, Stall: 200 * time.Millisecond, GiveUp: 20 * time.Millisecond, Timeout: 5 * time.Second, MaxSize: most}
		c, err := source.NewClient(o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		address := "http://" + l.Addr().String() + "/x"
		var n int64
		if image {
			if img, err := c.Open(t.Context(), address, source.Limits{}); err == nil {
				n, _ = io.Copy(io.Discard, io.LimitReader(img, 64<<20))
				if img.Codec() != "raw" {
					n = 0 // bounded by the reader's map
				}
				img.Close()
			}
		} else if data, err := c.Fetch(t.Context(), address, most); err == nil {
			n = int64(len(data))
		}
		if n > most || time.Since(start) > 20*time.Second {
			t.Errorf("%d bytes in %s", n, time.Since(start))
		}
	})
}
