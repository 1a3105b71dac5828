package service

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of a client.
const (
	maxMessage = 64 << 10 // bytes
	maxClients = 32
	writeTime  = 30 * time.Second
)

//go:embed io.updater.varlink
var description string

//go:embed org.varlink.service.varlink
var ownDescription string

// interfaces are the descriptions by name.
var interfaces = map[string]string{"io.updater": description, "org.varlink.service": ownDescription}

// call is one message of a client, and where its replies go.
type call struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters"`
	More       bool            `json:"more"`
	Oneway     bool            `json:"oneway"`
	Upgrade    bool            `json:"upgrade"`

	conn net.Conn
	in   *bufio.Reader
}

type reply struct {
	Parameters any    `json:"parameters,omitempty"`
	Continues  bool   `json:"continues,omitempty"`
	Error      string `json:"error,omitempty"`
}

// fault is an error of the protocol or of the interface.
type fault struct {
	name       string
	parameters any
}

func (f *fault) Error() string { return fmt.Sprintf("%s %v", f.name, f.parameters) }

func protocolError(name, parameter, value string) error {
	return &fault{"org.varlink.service." + name, map[string]string{parameter: value}}
}

// send writes one reply. A client that does not read for writeTime is an error.
func (c *call) send(r reply) error {
	if c.Oneway {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return err
	}
	message := text.Bytes()
	message[len(message)-1] = 0 // the line feed of the encoder
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := c.conn.Write(message)
	return err
}

// watch calls act once when the client goes away or sends another message, unless stop is called before.
func (c *call) watch(act func(gone bool)) (stop func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := c.in.Peek(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			act(err != nil)
		}
	}()
	return func() {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		<-ended
		_ = c.conn.SetReadDeadline(time.Time{})
	}
}

// read reads the parameters of a call into a struct. Every member but pointers is required, unknown ones are refused.
func (c *call) read(into any) error {
	dec := json.NewDecoder(bytes.NewReader(c.Parameters))
	dec.DisallowUnknownFields()
	if len(c.Parameters) > 0 {
		if err := dec.Decode(into); err != nil {
			name := "parameters"
			if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
				name = wrong.Field
			} else if _, unknown, ok := strings.Cut(err.Error(), "unknown field "); ok {
				name = strings.Trim(unknown, `"`)
			}
			return protocolError("InvalidParameter", "parameter", name)
		}
	}
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.Pointer && v.Field(i).IsZero() {
			return protocolError("InvalidParameter", "parameter", v.Type().Field(i).Tag.Get("json"))
		}
	}
	return nil
}

// Inherited is the socket that a unit passes: one descriptor, the third (sd_listen_fds(3)).
func Inherited() (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, errors.New("no socket was passed; expected one, by LISTEN_FDS and LISTEN_PID")
	}
	f := os.NewFile(3, "the socket")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a socket of %s was passed, expected a Unix one", l.Addr().Network()), l.Close())
	}
	u.SetUnlinkOnClose(false) // it is the unit's
	return u, nil
}

// Serve answers on a listener until ctx ends, or until nobody has been connected for the time idle. Neither is an error.
func (s *Service) Serve(ctx context.Context, l *net.UnixListener, idle time.Duration) error {
	var clients sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer clients.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })()
	free := make(chan struct{}, maxClients)
	for {
		free <- struct{}{}
		_ = l.SetDeadline(time.Now().Add(idle))
		if ctx.Err() != nil {
			return nil
		}
		conn, err := l.Accept()
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			if <-free; ctx.Err() != nil || len(free) == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		clients.Go(func() {
			defer func() { <-free }()
			s.converse(ctx, conn)
		})
	}
}

// converse answers the messages of one client in turn. A message that cannot be read ends the connection, as the protocol requires.
func (s *Service) converse(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	for in := bufio.NewReaderSize(conn, maxMessage); ctx.Err() == nil; {
		message, err := in.ReadSlice(0)
		if err != nil {
			return
		}
		c := &call{conn: conn, in: in}
		if json.Unmarshal(message[:len(message)-1], c) != nil || c.Upgrade {
			return
		}
		parameters, err := s.dispatch(ctx, c)
		r := reply{Parameters: parameters}
		if err != nil {
			r = s.failure(err)
		}
		if c.send(r) != nil {
			return
		}
	}
}

// failure is the reply for an error.
func (s *Service) failure(err error) reply {
	if f, ok := errors.AsType[*fault](err); ok {
		return reply{Error: f.name, Parameters: f.parameters}
	}
	code, hint := s.o.Describe(err)
	return reply{Error: "io.updater.Failed", Parameters: struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint"`
	}{code, err.Error(), hint}}
}

// about answers the interface that every service has.
func (s *Service) about(c *call) (any, error) {
	if c.Method == "org.varlink.service.GetInfo" {
		return struct {
			Vendor     string   `json:"vendor"`
			Product    string   `json:"product"`
			Version    string   `json:"version"`
			URL        string   `json:"url"`
			Interfaces []string `json:"interfaces"`
		}{"updater", "updater", s.o.Version, "", []string{"io.updater", "org.varlink.service"}}, nil
	}
	if c.Method != "org.varlink.service.GetInterfaceDescription" {
		return nil, protocolError("MethodNotFound", "method", c.Method)
	}
	var in struct {
		Interface string `json:"interface"`
	}
	if err := c.read(&in); err != nil {
		return nil, err
	}
	text, ok := interfaces[in.Interface]
	if !ok {
		return nil, protocolError("InterfaceNotFound", "interface", in.Interface)
	}
	return map[string]string{"description": text}, nil
}
