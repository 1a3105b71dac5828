// Package nbd serves a crash disk as a network block device on a Unix socket, for QEMU: the disk of a virtual machine
// whose power can be cut between any two commands. It speaks the fixed newstyle handshake with NBD_OPT_GO and the simple
// replies of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md), for one client at a time, and is for tests only.
package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"updater/internal/crashdisk"
)

// Server serves one disk.
type Server struct {
	Path string        // of the socket
	Cut  chan struct{} // closed at the command at which the power fails; that command gets no answer

	d   *crashdisk.Disk
	l   net.Listener
	wg  sync.WaitGroup
	mu  sync.Mutex
	at  int // writes and flushes until the cut; below 0 none
	n   int // writes and flushes so far
	c   net.Conn
	end bool
}

// Serve listens on the socket path. The power fails at command cutAt, counted from 1 over the commands that change the disk
// (writes, zeros, discards and flushes); 0 is never.
func Serve(d *crashdisk.Disk, path string, cutAt int) (*Server, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &Server{Path: path, Cut: make(chan struct{}), d: d, l: l, at: cutAt}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.c = c
			s.mu.Unlock()
			_ = s.serve(c) // ends when the client does
			c.Close()
		}
	})
	return s, nil
}

// Commands returns the number of commands so far that change the disk.
func (s *Server) Commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// Close ends the server and its connection.
func (s *Server) Close() error {
	err := s.l.Close()
	s.mu.Lock()
	if s.c != nil {
		s.c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// The numbers of the protocol.
const (
	magic       = 0x4e42444d41474943
	optMagic    = 0x49484156454F5054
	optReply    = 0x3e889045565a9
	request     = 0x25609513
	simpleReply = 0x67446698

	optAbort, optInfo, optGo            = 2, 6, 7
	repAck, repInfo, repUnsupported     = 1, 3, 1<<31 | 1
	hasFlags, sendFlush, sendTrim, zero = 1, 4, 32, 64
	eio, einval                         = 5, 22
	maxRequest                          = 32 << 20
)

const (
	cmdRead = iota
	cmdWrite
	cmdDisconnect
	cmdFlush
	cmdTrim
	_
	cmdZero
)

var be = binary.BigEndian

func (s *Server) serve(c net.Conn) error {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	if err := s.handshake(r, w); err != nil {
		return err
	}
	for {
		if err := s.command(r, w); err != nil {
			return err
		}
	}
}

func (s *Server) handshake(r *bufio.Reader, w *bufio.Writer) error {
	hello := be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, magic), optMagic), 1|2)
	if err := write(w, hello); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(r, flags[:]); err != nil {
		return err
	}
	for {
		var head [16]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		opt, length := be.Uint32(head[8:]), be.Uint32(head[12:])
		if be.Uint64(head[:]) != optMagic || length > 4096 {
			return errors.New("malformed option")
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			b := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, optReply), opt), kind)
			return write(w, append(be.AppendUint32(b, uint32(len(data))), data...))
		}
		switch opt {
		case optInfo, optGo:
			export := be.AppendUint64(be.AppendUint16(nil, 0), uint64(s.d.Size()))
			export = be.AppendUint16(export, hasFlags|sendFlush|sendTrim|zero)
			if err := errors.Join(reply(repInfo, export), reply(repAck, nil)); err != nil || opt == optGo {
				return err
			}
		case optAbort:
			return errors.Join(reply(repAck, nil), io.EOF)
		default:
			if err := reply(repUnsupported, nil); err != nil {
				return err
			}
		}
	}
}

func write(w *bufio.Writer, p []byte) error {
	if _, err := w.Write(p); err != nil {
		return err
	}
	return w.Flush()
}

// command executes one request.
func (s *Server) command(r *bufio.Reader, w *bufio.Writer) error {
	var head [28]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if be.Uint32(head[:]) != request {
		return errors.New("malformed request")
	}
	kind := be.Uint16(head[6:])
	off, length := int64(be.Uint64(head[16:])), int64(be.Uint32(head[24:]))
	if length > maxRequest && (kind == cmdRead || kind == cmdWrite) {
		return fmt.Errorf("request of %d bytes", length)
	}
	var data []byte
	if kind == cmdWrite {
		data = make([]byte, length)
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
	}
	if kind == cmdDisconnect {
		return io.EOF
	}
	if kind != cmdRead && s.cut() {
		return io.ErrClosedPipe
	}
	var err error
	switch kind {
	case cmdRead:
		data = make([]byte, length)
		err = s.d.ReadCommand(data, off)
	case cmdWrite:
		err, data = s.d.WriteCommand(data, off), nil
	case cmdFlush:
		err = s.d.FlushCommand()
	case cmdTrim:
		err = s.d.DiscardCommand(off, length)
	case cmdZero:
		err = s.d.ZeroCommand(off, length)
	default:
		err = errors.ErrUnsupported
	}
	code := uint32(0)
	if err != nil {
		code, data = eio, nil
		if errors.Is(err, errors.ErrUnsupported) {
			code = einval
		}
	}
	b := be.AppendUint32(be.AppendUint32(nil, simpleReply), code)
	return write(w, append(append(b, head[8:16]...), data...))
}

// cut counts a command and reports whether it is the one that gets no answer.
func (s *Server) cut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if s.at <= 0 || s.n < s.at {
		return false
	}
	if !s.end {
		s.end = true
		s.d.PowerOff()
		close(s.Cut)
	}
	return true
}
