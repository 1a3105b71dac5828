//go:build vm

package boards

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"updater/internal/qemu"
)

// board is a device that a script of examples/boards has built, and the web server that the device follows.
type board struct {
	script, dir string
	www         string // files of the server
	env         []string
	server      *httptest.Server

	mu      sync.Mutex
	sent    map[string]int64 // bytes, by the path of the file
	reports []report
}

// report is what a device reports about a release (docs/report.schema.json).
type report struct {
	Identifier string `json:"identifier"`
	Outcome    string `json:"outcome"`
	Slot       string `json:"slot"`
	Version    string `json:"version"`
}

// newBoard skips the test if a program or file of the host is missing. It runs examples/boards/NAME/build.sh with a folder for its output, with
// SERVER, the address by which the guest reaches the host's web server, and with DEBIAN, a folder that keeps packages between runs. The server
// offers the folder www of the output and accepts reports.
func newBoard(t *testing.T, name string, needs ...string) *board {
	t.Helper()
	for _, need := range needs {
		_, err := exec.LookPath(need)
		if _, stat := os.Stat(need); err != nil && stat != nil {
			t.Skip("not installed (scripts/deps.sh): ", err)
		}
	}
	cache, err := filepath.Abs(cmp.Or(os.Getenv("UPDATER_VM_DIR"), "../../build/vm"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b, address := serve(t, name, dir, filepath.Join(dir, "www"))
	b.env = append(os.Environ(), "SERVER="+address, "DEBIAN="+filepath.Join(cache, "debian-"+name),
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	begin := time.Now()
	b.run(t, b.script, b.dir)
	t.Logf("built in %.0f s", time.Since(begin).Seconds())
	return b
}

// serve begins a board: its server, and the address by which the guest reaches it.
func serve(t *testing.T, name, dir, www string) (b *board, address string) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("../../examples/boards", name, "build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	b = &board{script: script, dir: dir, www: www, sent: map[string]int64{}}
	b.server = httptest.NewServer(b)
	t.Cleanup(b.server.Close)
	_, port, _ := strings.Cut(b.server.Listener.Addr().String(), ":")
	return b, "http://10.0.2.2:" + port
}

// run runs a program of the host in the board's folder and returns its output.
func (b *board) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ServeHTTP offers files and takes the device's reports.
func (b *board) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.Method == http.MethodPost {
		var r report
		if err := json.NewDecoder(q.Body).Decode(&r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		b.reports = append(b.reports, r)
		b.mu.Unlock()
		return
	}
	http.FileServer(http.Dir(b.www)).ServeHTTP(counter{w, b, q.URL.Path}, q)
}

type counter struct {
	http.ResponseWriter
	board *board
	path  string
}

func (c counter) Write(p []byte) (int, error) {
	c.board.mu.Lock()
	c.board.sent[c.path] += int64(len(p))
	c.board.mu.Unlock()
	return c.ResponseWriter.Write(p)
}

// fetched returns how many bytes the device has fetched of files whose path matches.
func (b *board) fetched(re string) (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, bytes := range b.sent {
		if regexp.MustCompile(re).MatchString(path) {
			n += bytes
		}
	}
	return n
}

// wantReports compares the reports so far; a device delivers each at least once.
func (b *board) wantReports(t *testing.T, want ...report) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []report
	for _, r := range b.reports {
		if len(got) == 0 || got[len(got)-1] != r {
			got = append(got, r)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("reports %+v; want %+v", got, want)
	}
}

// start boots a machine with a network card behind QEMU's user network.
func (b *board) start(t *testing.T, c qemu.Config) *qemu.Machine {
	t.Helper()
	c.Args = append(c.Args, "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=")
	c.Timeout = cmp.Or(c.Timeout, 10*time.Minute)
	if c.Log == nil {
		c.Log = t.Output()
	}
	m, err := qemu.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.PowerCut)
	return m
}

// expect waits for console lines, in this order.
func expect(t *testing.T, m *qemu.Machine, lines ...string) {
	t.Helper()
	for _, re := range lines {
		if _, err := m.Expect(re); err != nil {
			t.Fatal(err)
		}
	}
}

// restarts waits for the end of a boot, which must be a reset.
func restarts(t *testing.T, m *qemu.Machine) {
	t.Helper()
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if m.End() != qemu.Reset {
		t.Fatalf("the machine ended by %s; want a reset", m.End())
	}
}
