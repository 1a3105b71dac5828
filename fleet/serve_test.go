package fleet_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"updater/device"
	"updater/internal/rig"
)

// serves starts a server of the device, and returns its address and the identity of the release of a slot.
func (l *line) serves(slot string) (address, identity string) {
	l.Helper()
	l.follow = "[serve]\nlisten = \"127.0.0.1:0\"\nrate_limit = \"4M\"\n"
	l.boots("A")
	cmd := l.Command("serve", "--config", "config.toml")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err == nil {
			l.Error("an interrupted server ends with exit 0")
		}
	})
	text, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		l.Fatalf("%q: %v", text, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	var status device.Status
	_, shown, _ := l.Run("status", "--json", "--config", "config.toml")
	if err := json.Unmarshal([]byte(shown), &status); err != nil {
		l.Fatal(err)
	}
	for _, s := range status.Slots {
		if s.Name == slot {
			identity = s.Images["rootfs"].Release
		}
	}
	return strings.TrimSpace(strings.TrimPrefix(text, "serving on ")), identity
}

// A device updates from another one: the documents with their signatures, and the image from its running slot, at the rate that is set.
func TestServe(t *testing.T) {
	l := newLine(t)
	l.run(2, "serve.listen is not set", "serve")
	l.both()
	address, identity := l.serves("A")
	other := rig.New(t)
	other.Configure(`state = "PARTLABEL=state"`, "")
	other.Install(0, "slot B boots next", "http://"+address+"/"+identity+"/release.toml")
	at := rig.SlotOffset("grub", "B")
	if got := other.Read("disk.img")[at : at+rig.SlotBytes]; !bytes.Equal(got[:rig.ImageBytes], l.slot("A")[:rig.ImageBytes]) {
		t.Error("slot B of the other device is not slot A of this one")
	}
	other.Install(3, "nothing to do", "http://"+address+"/"+identity+"/release.toml")
	stranger := rig.New(t)
	stranger.Configure("", "")
	stranger.Write("config.toml", []byte(strings.Replace(string(stranger.Read("config.toml")), `product = "demo"`, `product = "other"`, 1)))
	stranger.Refused(11, "", "http://"+address+"/"+identity+"/release.toml")
}

// The content of a slot is sent only as it was signed, and a client that sends nonsense, too much or nothing gets no more and does not keep
// others from being served.
func TestServeHostile(t *testing.T) {
	l := newLine(t)
	l.both()
	want := l.slot("A")[:rig.ImageBytes]
	address, identity := l.serves("A")
	base := "/" + identity + "/"
	get := func(method, path string, headers ...string) (*http.Response, []byte, error) {
		t.Helper()
		q, err := http.NewRequest(method, "http://"+address, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.URL.Opaque = path
		for i := 0; i < len(headers); i += 2 {
			q.Header.Set(headers[i], headers[i+1])
		}
		r, err := http.DefaultClient.Do(q)
		for n := 0; err != nil && n < 20; n++ { // the connections before may not be counted down yet
			time.Sleep(50 * time.Millisecond)
			r, err = http.DefaultClient.Do(q)
		}
		if err != nil {
			return &http.Response{}, nil, err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return r, body, err
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var idle []net.Conn
	for range 4 { // as many as one address may have
		c := dial()
		fmt.Fprint(c, "GET / HT")
		idle = append(idle, c)
	}
	over := dial()
	_ = over.SetReadDeadline(time.Now().Add(5 * time.Second)) // before the headers of the others are due
	if _, err := over.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection beyond the limit: %v; want its end", err)
	}
	for _, c := range idle[1:] {
		c.Close()
	}
	for path, code := range map[string]int{
		"/": 404, base: 404, "/" + identity: 404, base + "../../etc/passwd": 404, "//etc/passwd": 404, base + "%2e%2e/%2e%2e/etc/passwd": 404,
		base + "rootfs.img/": 404, base + "state": 404, "/" + strings.Repeat("0", 64) + "/rootfs.img": 404,
		base + "release.toml": 200, base + "release.toml.sig": 200, base + "rootfs.img.bmap": 200,
	} {
		if r, _, err := get("GET", path); err != nil || r.StatusCode != code {
			t.Errorf("GET %s = %d, %v; want %d", path, r.StatusCode, err, code)
		}
	}
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
		if r, _, err := get(method, base+"rootfs.img"); err != nil || r.StatusCode != 405 {
			t.Errorf("%s = %d, %v; want 405", method, r.StatusCode, err)
		}
	}
	size := int64(rig.ImageBytes)
	for _, c := range []struct {
		spec      string
		code      int
		from, end int64
	}{
		{"bytes=0-0", 206, 0, 1}, {"bytes=5000000-5000099", 206, 5000000, 5000100}, {"bytes=-1000", 206, size - 1000, size},
		{"bytes=8380000-", 206, 8380000, size}, {"bytes=8380000-99999999999", 206, 8380000, size},
		{"bytes=99999999999-", 416, 0, 0}, {"bytes=9-8", 416, 0, 0}, {"bytes=-0", 416, 0, 0},
		{"bytes=0-9223372036854775807", 206, 0, size}, {"bytes=0-1,3-4", 200, 0, size}, {"bytes=-5-", 200, 0, size}, {"lines=1-2", 200, 0, size},
	} {
		r, body, err := get("GET", base+"rootfs.img", "Range", c.spec)
		if err != nil || r.StatusCode != c.code || !bytes.Equal(body, want[c.from:c.end]) {
			t.Errorf("Range %s = %d with %d bytes, %v; want %d and bytes %d to %d", c.spec, r.StatusCode, len(body), err, c.code, c.from, c.end)
		}
	}
	start := time.Now()
	if _, body, err := get("GET", base+"rootfs.img"); err != nil || !bytes.Equal(body, want) {
		t.Errorf("the image has %d bytes, %v", len(body), err)
	}
	if took := time.Since(start); took < 900*time.Millisecond { // 2 s at the rate, less the second that is made up for
		t.Errorf("the image came in %s", took)
	}
	if r, _, err := get("GET", base+"rootfs.img", "X", strings.Repeat("a", 16<<10)); err == nil && r.StatusCode != 431 {
		t.Errorf("16 KiB of headers = %d", r.StatusCode)
	}
	l.damage("A", 701) // as a file system that is mounted read-write
	if _, body, err := get("GET", base+"rootfs.img"); err == nil || !bytes.HasPrefix(want, body) {
		t.Errorf("a damaged image: %d bytes, %v; want an end before the damage", len(body), err)
	}
	if r, body, err := get("GET", base+"rootfs.img", "Range", "bytes=2871400-2871500"); err != nil || r.StatusCode != 404 || len(body) > 0 {
		t.Errorf("a damaged range = %d with %d bytes, %v; want 404", r.StatusCode, len(body), err)
	}
	if r, body, err := get("GET", base+"rootfs.img", "Range", "bytes=0-99"); err != nil || !bytes.Equal(body, want[:100]) {
		t.Errorf("an intact range = %d with %d bytes, %v", r.StatusCode, len(body), err)
	}
	_ = idle[0].SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := idle[0].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection without a request: %v; want its end", err)
	}
}
