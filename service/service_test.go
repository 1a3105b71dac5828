package service_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"updater/internal/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Cleanly(m).Run()) }

var update = flag.Bool("update", false, "write the transcripts as they are now")

// started is the program on a socket that it inherits, as from a unit, and a device for it.
type started struct {
	*rig.Rig
	socket string
	ended  chan error
}

func start(t *testing.T) *started {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	r.Sh("rm image.img.bmap.asc")
	r.Bmap("image.img.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
	s := &started{Rig: r, socket: filepath.Join(rig.Shared(), fmt.Sprintf("s%d", time.Now().UnixNano())), ended: make(chan error, 1)}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" varlink --config config.toml --idle 2s`, r.Program)
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.ExtraFiles = r.Dir, r.Env, t.Output(), []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	return s
}

// wait expects the program to end by itself when nobody is connected.
func (s *started) wait() {
	s.Helper()
	if err := <-s.ended; err != nil {
		s.Errorf("the program ended with %v", err)
	}
}

// client is one connection.
type client struct {
	net.Conn
	in *bufio.Reader
}

func (s *started) dial() client {
	s.Helper()
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		s.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	return client{c, bufio.NewReader(c)}
}

func (c client) send(message string) { fmt.Fprintf(c, "%s\x00", message) }

func (c client) receive() (string, error) {
	text, err := c.in.ReadString(0)
	return strings.TrimSuffix(text, "\x00"), err
}

// masks replace the parts that differ from run to run.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`"ts":"[^"]*","seq":\d+`), `"ts":TIME,"seq":N`},
	{regexp.MustCompile(`"seconds":\{[^}]*\}`), `"seconds":{}`},
	{regexp.MustCompile(`"(written_bytes|skipped_bytes|zeroed_bytes)":[0-9.e-]+`), `"$1":N`},
	{regexp.MustCompile(`[0-9A-Fa-f]{16,64}`), "HEX"},
	{regexp.MustCompile(`,"device":\{[^{}]*\}`), ""},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`"version":"[^"]*","url"`), `"version":VERSION,"url"`},
}

func (s *started) masked(text string) string {
	text = strings.ReplaceAll(text, s.Dir, "/DIR")
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.by)
	}
	return text
}

// TestTranscripts compares the protocol with transcripts: lines with ">" are sent, and every answer is a line with "<".
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.transcript")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".transcript"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t)
			c := s.dial()
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				if message, sent := strings.CutPrefix(line, "> "); sent {
					c.send(strings.ReplaceAll(strings.TrimSpace(message), "/DIR", s.Dir))
					got.WriteString(line)
					s.answers(c, &got, message)
				} else if !strings.HasPrefix(line, "< ") {
					got.WriteString(line)
				}
			}
			c.Close()
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(want) {
				t.Errorf("%s: the conversation is\n%s", file, got.String())
			}
			s.wait()
		})
	}
}

// answers writes all replies to a message except progress.
func (s *started) answers(c client, to *strings.Builder, message string) {
	if strings.Contains(message, `"oneway":true`) {
		return
	}
	for {
		text, err := c.receive()
		if err != nil {
			fmt.Fprintf(to, "< (%v)\n", err)
			return
		}
		var r struct{ Continues bool }
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			s.Fatalf("%s: %v", text, err)
		}
		if !strings.Contains(text, `"ev":"progress"`) {
			fmt.Fprintf(to, "< %s\n", s.masked(text))
		}
		if !r.Continues {
			return
		}
	}
}

// TestHostile: messages that are too long or no messages end the connection and nothing else.
func TestHostile(t *testing.T) {
	s := start(t)
	for _, message := range []string{strings.Repeat("x", 1<<20), "{", "[]\x00", "\x00", `{"method":7}` + "\x00", `{"method":"io.updater.Status","upgrade":true}` + "\x00"} {
		c := s.dial()
		_, _ = io.WriteString(c, message)
		if err := c.Conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text, err := c.receive(); err == nil {
			t.Errorf("%.20q is answered with %s", message, text)
		}
		c.Close()
	}
	c := s.dial()
	c.send(`{"method":"io.updater.Status"}`)
	if text, err := c.receive(); err != nil || !strings.Contains(text, `"backend":"grub"`) {
		t.Errorf("after that the status is %s, %v", text, err)
	}
	c.Close()
	s.wait()
}

// TestMonitor: one client watches what another one installs, while others are answered. The install ends when its client goes away.
func TestMonitor(t *testing.T) {
	s := start(t)
	held, asked := make(chan struct{}), make(chan struct{}, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, ".img") {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-held
		}
		http.ServeFile(w, q, s.Path(q.URL.Path))
	}))
	defer server.Close()
	monitor, first := s.dial(), s.dial()
	monitor.send(`{"method":"io.updater.Monitor","more":true}`)
	install := `{"method":"io.updater.Install","parameters":{"source":"` + server.URL + `/image.img"},"more":true}`
	first.send(install)
	watch := func(until string) {
		t.Helper()
		for {
			text, err := monitor.receive()
			if err != nil {
				t.Fatalf("the monitor ends with %v before %s", err, until)
			}
			if strings.Contains(text, until) {
				return
			}
		}
	}
	second := s.dial()
	second.send(`{"method":"io.updater.Status"}`)
	if text, err := second.receive(); err != nil || !strings.Contains(text, `"primary":"A"`) {
		t.Errorf("the status during an install is %s, %v", text, err)
	}
	<-asked
	first.Close()
	watch(`"ev":"result","code":`)
	close(held)
	second.send(install)
	watch(`"ev":"result","code":0`)
	monitor.Close()
	second.Close()
	s.wait()
	if s.Next() != "B" {
		t.Errorf("slot %q boots next", s.Next())
	}
}

// TestOtherClient calls the service by the client library of varlink.org for Python, which reads the interface from the service.
func TestOtherClient(t *testing.T) {
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import varlink").CombinedOutput(); err != nil {
		t.Skipf("pip install -r service/testdata/requirements.txt: %s", out)
	}
	s := start(t)
	cmd := exec.Command(python, "testdata/client.py", "unix:"+s.socket, s.Path("image.img"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
	s.wait()
	if s.Next() != "B" {
		t.Errorf("slot %q boots next", s.Next())
	}
}
