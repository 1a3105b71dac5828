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
d = sqlite3.connect("db")
d.execute("insert into hardware (id, model, revision) values (1, 'default', 'default')")
d.execute("insert into software (id, uri, size, hash, version) values (7, ?, 1, 'x', '1')", (sys.argv[1],))
d.execute("insert into software_compatibility (software_id, hardware_id) values (7, 1)")
d.execute("insert into device (id, hardware_id, assigned_software_id, update_mode, last_state) values ('unit-1', 1, 7, 4, 1)")
d.commit()`
	gooseState = `import sqlite3
print(sqlite3.connect("db").execute("select last_state, sw_version from device").fetchone())`
)

// TestGoosebit: a real server registers the device, offers a release and learns of its boot. GOOSEBIT names a Python that has goosebit.
func TestGoosebit(t *testing.T) {
	python := os.Getenv("GOOSEBIT")
	if python == "" {
		t.Skip("GOOSEBIT does not name a Python with goosebit")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &goose{newLine(t), python, fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}
	l.Close()
	g.Sh("mkdir goose")
	g.publish("1", 1)
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
	g.runs(gooseAssign, front.URL+"/1/release.toml")
	server := g.python3("-m", "goosebit")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	for range 600 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+g.port); err == nil {
			c.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	g.follow = fmt.Sprintf("[channel]\nidentifier = \"unit-1\"\nhawkbit = { url = %q }\n[source]\ngive_up = \"5s\"\n", front.URL)
	g.boots("A")
	g.run(3, "the server has nothing", "check") // it registers the device
	g.run(0, "version 1 is for this device", "check")
	g.run(0, "installed version 1 into slot B", "update")
	if got := g.runs(gooseState); got != "(3, None)" && got != "(3, '')" {
		t.Errorf("the server has %s, want a running action", got)
	}
	g.restart()
	g.run(0, "", "mark", "good")
	g.run(0, "1 reports sent", "report", "--now")
	if got := g.runs(gooseState); got != "(5, '1')" {
		t.Errorf("the server has %s, want a finished action and version 1", got)
	}
	g.run(3, "the server has nothing", "check")
}
