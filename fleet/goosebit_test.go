package fleet_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// goose is a gooseBit server and its database.
type goose struct {
	*line
	python, port string
	server       *exec.Cmd
	actions      int64
}

// runs runs a program of Python.
func (g *goose) runs(program string, args ...string) string {
	g.Helper()
	out, err := g.python3(append([]string{"-c", program}, args...)...).CombinedOutput()
	if err != nil {
		g.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func (g *goose) python3(args ...string) *exec.Cmd {
	cmd := exec.Command(g.python, args...)
	cmd.Dir = g.Path("goose")
	cmd.Env = append(os.Environ(), "GOOSEBIT_PORT="+g.port, "GOOSEBIT_DB_URI=sqlite://"+g.Path("goose/db"), "GOOSEBIT_ARTIFACTS_DIR="+g.Path("goose"))
	return cmd
}

const (
	gooseSchema = `import pathlib, goosebit, sys
at = pathlib.Path(goosebit.__file__).parent / "db/migrations"
pathlib.Path("pyproject.toml").write_text(f'[tool.aerich]\ntortoise_orm = "goosebit.db.config.TORTOISE_CONF"\nlocation = "{at}"\nsrc_folder = "./."\n')
from aerich.cli import main
sys.argv = ["aerich", "upgrade"]
main()`
	gooseAssign = `import sqlite3, sys
number, uri, version = sys.argv[1:]
d = sqlite3.connect("db")
hardware, = d.execute("select hardware_id from device").fetchone()
d.execute("insert into software (id, uri, size, hash, version) values (?, ?, 1, 'x', ?)", (number, uri, version))
d.execute("insert into software_compatibility (software_id, hardware_id) values (?, ?)", (number, hardware))
d.execute("update device set assigned_software_id = ?, update_mode = 4, last_state = 2", (number,))
d.commit()`
	gooseState = `import sqlite3
print(sqlite3.connect("db").execute("select last_state from device").fetchone()[0])`
)

// TestGoosebit: a real server registers the device, offers a release and learns of its boot. GOOSEBIT names a Python that has goosebit.
func TestGoosebit(t *testing.T) {
	python := os.Getenv("GOOSEBIT")
	if python == "" {
		t.Skip("GOOSEBIT does not name a Python with goosebit")
	}
	runScenarios(t, false, func(t *testing.T) ddi { return newGoose(t, python) })
}

func newGoose(t *testing.T, python string) *goose {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &goose{line: newLine(t), python: python, port: fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}
	l.Close()
	g.Sh("mkdir goose")
	g.runs(gooseSchema)
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:" + g.port}) // keeps the name of the host
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/DEFAULT/") {
			behind.ServeHTTP(w, r)
			return
		}
		http.ServeFile(w, r, g.Path("pub"+r.URL.Path))
	}))
	t.Cleanup(front.Close)
	g.url = front.URL
	g.begin()
	t.Cleanup(g.end)
	g.follow = fmt.Sprintf("[channel]\nidentifier = \"unit-1\"\nhawkbit = { url = %q }\n[source]\ngive_up = \"5s\"\n", front.URL)
	g.boots("A")
	return g
}

// begin starts the server.
func (g *goose) begin() {
	g.Helper()
	g.server = g.python3("-m", "goosebit")
	if err := g.server.Start(); err != nil {
		g.Fatal(err)
	}
	for range 600 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+g.port); err == nil {
			c.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.Fatal("gooseBit does not come up")
}

func (g *goose) end() { _ = g.server.Process.Kill(); _ = g.server.Wait() }

func (g *goose) device() *line { return g.line }

func (g *goose) offer(dir string, _ manner) int64 {
	g.Helper()
	g.actions++
	g.end() // it has its devices in memory
	defer g.begin()
	g.runs(gooseAssign, fmt.Sprint(g.actions), g.url+"/"+dir+"/release.toml", fmt.Sprint("v", g.actions))
	return g.actions
}

func (g *goose) cancel() {}

// state is the state of the device, by its number in the database.
func (g *goose) state() string {
	g.Helper()
	state := g.runs(gooseState)
	if name, ok := map[string]string{"3": "running", "4": "error", "5": "finished"}[state]; ok {
		return name
	}
	return state
}

func (g *goose) attributes() map[string]string { return nil }
