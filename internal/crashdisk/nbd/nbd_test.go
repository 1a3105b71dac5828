package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/crashdisk"
	"updater/internal/crashdisk/nbd"
)

// client implements the protocol from its document, independently of the server.
type client struct {
	t *testing.T
	c net.Conn
}

func (c *client) send(fields ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, f := range fields {
		if err := binary.Write(&b, binary.BigEndian, f); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.c.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(c.c, p); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// connect shakes hands and returns the size and the flags of the export.
func connect(t *testing.T, path string) (c *client, size uint64, flags uint16) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c = &client{t, conn}
	if got := c.read(18); string(got[:16]) != "NBDMAGICIHAVEOPT" {
		t.Fatalf("greeting %q", got)
	}
	c.send(uint32(3), []byte("IHAVEOPT"), uint32(8), uint32(0)) // structured replies, which are refused
	if got := c.read(20); binary.BigEndian.Uint32(got[12:]) != 1<<31|1 {
		t.Fatalf("reply %x to an option that is not known", got)
	}
	c.send([]byte("IHAVEOPT"), uint32(7), uint32(6), uint32(0), uint16(0)) // GO, the default export
	info := c.read(20 + 12)
	c.read(20)
	return c, binary.BigEndian.Uint64(info[22:]), binary.BigEndian.Uint16(info[30:])
}

func (c *client) command(kind uint16, off uint64, length uint32, data []byte, want int) (code uint32, got []byte) {
	c.t.Helper()
	c.send(uint32(0x25609513), uint16(0), kind, []byte("handle!!"), off, length, data)
	reply := c.read(16)
	if binary.BigEndian.Uint32(reply) != 0x67446698 || string(reply[8:]) != "handle!!" {
		c.t.Fatalf("reply %x", reply)
	}
	if code = binary.BigEndian.Uint32(reply[4:]); code == 0 {
		got = c.read(want)
	}
	return code, got
}

func TestCommands(t *testing.T) {
	d := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{})
	s, err := nbd.Serve(d, filepath.Join(t.TempDir(), "s"), 6)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, size, flags := connect(t, s.Path)
	if size != 1<<20 || flags&(1|4) != 1|4 || flags&8 != 0 {
		t.Errorf("size %d, flags %#x; want a flush command and no FUA", size, flags)
	}
	data := bytes.Repeat([]byte{7}, 8192)
	if code, _ := c.command(1, 4096, 8192, data, 0); code != 0 || d.Volatile() != 8192 {
		t.Fatalf("write = %d, %d bytes volatile", code, d.Volatile())
	}
	if code, _ := c.command(3, 0, 0, nil, 0); code != 0 || d.Volatile() != 0 {
		t.Fatalf("flush = %d, %d bytes volatile", code, d.Volatile())
	}
	if code, got := c.command(0, 4096, 8192, nil, 8192); code != 0 || !bytes.Equal(got, data) {
		t.Errorf("read = %d, or other data", code)
	}
	if code, _ := c.command(6, 4096, 4096, nil, 0); code != 0 {
		t.Errorf("zero = %d", code)
	}
	if code, _ := c.command(1, 1<<20, 512, data[:512], 0); code != 5 {
		t.Errorf("a write past the end = %d; want EIO", code)
	}
	d.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.FlushDrop})
	if code, _ := c.command(3, 0, 0, nil, 0); code != 5 || d.Medium()[4096] != 7 {
		t.Errorf("a flush that fails = %d; want EIO, and the zeros lost", code)
	}
	if s.Commands() != 5 {
		t.Errorf("%d commands; want 5", s.Commands())
	}
	// The sixth command gets no answer.
	c.send(uint32(0x25609513), uint16(0), uint16(1), []byte("handle!!"), uint64(0), uint32(512), data[:512])
	<-s.Cut
	if n, err := c.c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the command at which the power fails was answered")
	}
	if d.Content()[0] != 0 {
		t.Error("the command at which the power fails was carried out")
	}
}
