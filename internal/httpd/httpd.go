// Package httpd answers HTTP requests, one on each connection: http.Server would take 170 KiB of the budget. The number of connections, the headers
// and the time of a request are bounded.
package httpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of a client.
const (
	headerTime = 10 * time.Second
	// PieceTime is the time that a client has for the body of a small request, and for every piece of an answer.
	PieceTime = 30 * time.Second
	// MaxHead bounds the headers, in bytes.
	MaxHead = 8 << 10
)

// Limits bound the connections at a time: of all clients, and of one address, where 0 is no limit.
type Limits struct{ Clients, Each int }

// Serve calls route with each request until ctx ends. Connections beyond the limit of one address are closed, and others wait in the kernel's
// queue. The answer ends when route returns.
func Serve(ctx context.Context, l net.Listener, limits Limits, route func(w *Response, r *http.Request)) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var mu sync.Mutex
	from := map[string]int{}
	count := func(conn net.Conn, n int) int {
		mu.Lock()
		defer mu.Unlock()
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if from[host] += n; from[host] == 0 {
			delete(from, host)
		}
		return from[host]
	}
	for free := make(chan struct{}, limits.Clients); ; {
		free <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		mine := count(conn, 1)
		go func() {
			defer func() { count(conn, -1); <-free }()
			if limits.Each > 0 && mine > limits.Each {
				_ = conn.Close() // nothing was read or written
				return
			}
			serve(ctx, conn, route)
		}()
	}
}

// lingering is how long a connection is read after its answer: if it were closed at once, a client that still sends would lose the answer.
const lingering = 2 * time.Second

func serve(ctx context.Context, conn net.Conn, route func(w *Response, r *http.Request)) {
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetReadDeadline(time.Now().Add(headerTime))
	limited := &io.LimitedReader{R: conn, N: MaxHead}
	r, err := http.ReadRequest(bufio.NewReaderSize(limited, 4<<10))
	w := &Response{Ctx: ctx, Conn: conn}
	if err != nil {
		if limited.N <= 0 {
			w.Begin(http.StatusRequestHeaderFieldsTooLarge, "text/plain")
		}
		return
	}
	limited.N = math.MaxInt64
	_ = conn.SetReadDeadline(time.Now().Add(PieceTime))
	route(w, r)
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(lingering))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// Response is the answer to a request. It ends with the connection.
type Response struct {
	Ctx     context.Context // of the connection
	Conn    net.Conn
	headers string
}

// Set adds a header before Begin.
func (w *Response) Set(name, value string) { w.headers += name + ": " + value + "\r\n" }

// Begin writes the status and the headers. Nothing is cached or framed, and a page can load from and connect to its own server only.
func (w *Response) Begin(code int, kind string) {
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"+
		"Referrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n%s\r\n", code, http.StatusText(code), kind, w.headers)
}

// Write implements io.Writer. A client that does not read ends the connection.
func (w *Response) Write(p []byte) (int, error) {
	_ = w.Conn.SetWriteDeadline(time.Now().Add(PieceTime))
	return w.Conn.Write(p)
}
