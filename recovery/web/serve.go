package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"
)

// Serve answers on a listener until ctx ends. Each connection carries one request: http.Server with all that it can do would take 170 KiB of
// the budget. Further connections wait in the kernel's queue.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for free := make(chan struct{}, maxClients); ; {
		free <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-free }()
			s.serve(ctx, conn)
		}()
	}
}

// lingering is how long a connection is read after its answer: closing it at once would take the answer from a client that still sends.
const lingering = 2 * time.Second

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetReadDeadline(time.Now().Add(headerTime))
	limited := &io.LimitedReader{R: conn, N: maxForm}
	r, err := http.ReadRequest(bufio.NewReaderSize(limited, 4<<10))
	w := &response{ctx: ctx, conn: conn}
	if err != nil {
		if limited.N <= 0 {
			answer(w, http.StatusRequestHeaderFieldsTooLarge, "the request has too many headers", "")
		}
		return
	}
	limited.N = math.MaxInt64
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	s.route(w, r)
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(lingering))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// response is the answer to a request. It ends with the connection.
type response struct {
	ctx     context.Context // of the connection
	conn    net.Conn
	headers string
}

func (w *response) set(name, value string) { w.headers += name + ": " + value + "\r\n" }

// begin writes the status and the headers. Nothing is cached or framed, and the page loads and reaches nothing but what is here.
func (w *response) begin(code int, kind string) {
	fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"+
		"Referrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n%s\r\n", code, http.StatusText(code), kind, w.headers)
}

// Write implements io.Writer. A client that does not read ends the connection.
func (w *response) Write(p []byte) (int, error) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(requestTime))
	return w.conn.Write(p)
}
