package fleet_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"updater/fleet"
	"updater/internal/rig"
)

// web is nginx with the publisher's folder; reports go through it to a program behind.
type web struct {
	*line
	port string
	cmd  *exec.Cmd
}

func newWeb(t *testing.T) *web {
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &web{line: newLine(t), port: fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}
	l.Close()
	behind := httptest.NewServer(w.line)
	t.Cleanup(behind.Close)
	w.Sh("mkdir tmp; chmod -R a+rX .")
	w.Write("nginx.conf", fmt.Appendf(nil, `worker_processes 1; pid nginx.pid; error_log error.log; user root;
events { worker_connections 256; }
http {
	access_log access.log; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
	server { listen 127.0.0.1:%[1]s; root %[2]s; location /report { proxy_pass %[3]s; } location /1w { proxy_pass %[3]s; } }
}`, w.port, w.Path("pub"), behind.URL))
	w.cmd = exec.Command(path, "-p", w.Dir, "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off; master_process off;")
	w.begin()
	t.Cleanup(w.end)
	return w
}

func (w *web) begin() {
	w.Helper()
	w.cmd = exec.Command(w.cmd.Path, w.cmd.Args[1:]...)
	if err := w.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	for range 400 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+w.port); err == nil {
			c.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	w.Fatalf("nginx does not come up: %s", w.Read("error.log"))
}

func (w *web) end() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// unit is one device of a fleet.
type unit struct {
	*line
	name string
}

// fleetSize is how many devices the test has.
const fleetSize = 20

// devices makes the fleet.
func (w *web) devices(t *testing.T) []unit {
	var list []unit
	for n := range fleetSize {
		d := unit{&line{Rig: rig.New(t)}, fmt.Sprintf("unit-%d", n)}
		d.follow = fmt.Sprintf("[channel]\nurl = \"http://127.0.0.1:%[1]s/channel.toml\"\nidentifier = %[2]q\n"+
			"[report]\nurl = \"http://127.0.0.1:%[1]s/report\"\n[source]\ngive_up = \"5s\"\n", w.port, d.name)
		d.boots("A")
		list = append(list, d)
	}
	return list
}

// all runs a command on every device at the same time and returns the exit codes by name.
func all(list []unit, args ...string) map[string]int {
	codes, mu, wait := map[string]int{}, sync.Mutex{}, sync.WaitGroup{}
	for _, d := range list {
		wait.Go(func() {
			code, out, errs := d.Run(append(args, "--config", "config.toml")...)
			mu.Lock()
			defer mu.Unlock()
			codes[d.name] = code
			if code != 0 && code != 3 {
				d.Logf("%s: updater %s: exit %d: %s%s", d.name, strings.Join(args, " "), code, out, errs)
			}
		})
	}
	wait.Wait()
	return codes
}

// namesWith lists the devices whose command ended with a code.
func namesWith(codes map[string]int, code int) []string {
	var names []string
	for name, c := range codes {
		if c == code {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// inNamespace runs a test again in namespaces of its own for the network and the mounts, and reports whether this is that run.
func inNamespace(t *testing.T) bool {
	const inside = "FLEET_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("ip: %v: %s", err, out)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", "-m", "--", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// A fleet on a real web server: everybody, a full state store, a rollout that is held, a fallback, a server that is gone, a channel that is
// expired or replayed, a withdrawal, one in the middle of a download, and a hotfix.
func TestFleetOnNginx(t *testing.T) {
	if testing.Short() {
		t.Skip("twenty devices")
	}
	if !inNamespace(t) {
		return
	}
	w := newWeb(t)
	w.anyone = true
	list := w.devices(t)
	expect := func(what string, codes map[string]int, code, n int) {
		t.Helper()
		if got := namesWith(codes, code); len(got) != n {
			t.Fatalf("%s: exit %d on %d devices, want %d: %v", what, code, len(got), n, codes)
		}
	}
	proved := func(of []unit) {
		t.Helper()
		for _, d := range of {
			d.restart()
		}
		expect("mark good", all(of, "mark", "good"), 0, len(of))
		expect("report", all(of, "report", "--now"), 0, len(of))
	}
	w.publish("1", 1)
	expect("version 1", all(list, "update"), 0, fleetSize)
	proved(list)
	expect("again", all(list, "update"), 3, fleetSize)
	if got := w.reported(); len(got) != fleetSize || got[0] != "1 good" {
		t.Errorf("the server got %q", got)
	}

	w.full(list[0])

	// Version 1w is withdrawn while one device fetches it.
	w.publish("1w", 1)
	w.set(func() { w.onImage = func() { w.channel("withdraw", "1w") } })
	expect("withdrawn while downloading", all(list[:1], "update"), 12, 1)
	expect("withdrawn before", all(list, "update"), 3, fleetSize)
	expect("no report", all(list, "report", "--now"), 3, fleetSize)

	// Version 2 is held at 30 %: the devices whose place is below take it.
	w.publish("2", 2, "--percent=30", "--hours=0")
	w.Sh("cp pub/channel.toml old.toml; cp pub/channel.toml.sig old.sig")
	var shown struct{ Identity string }
	if err := json.Unmarshal([]byte(w.Expect(0, "", "release", "info", "--json", "pub/2/release.toml")), &shown); err != nil {
		t.Fatal(err)
	}
	var first, rest []unit
	for _, d := range list {
		if fleet.Place(d.name, shown.Identity) < 0.3 {
			first = append(first, d)
		} else {
			rest = append(rest, d)
		}
	}
	codes := all(list, "update")
	expect("version 2", codes, 0, len(first))
	for _, d := range first {
		if codes[d.name] != 0 {
			t.Errorf("%s is in turn: exit %d", d.name, codes[d.name])
		}
	}
	t.Logf("version 2: %d of %d devices", len(first), fleetSize)

	// It does not come up on one of them.
	if len(first) > 0 {
		broken := first[:1]
		broken[0].restart() // its only try
		proved(broken)
		proved(first[1:])
		if got := w.reported(); len(got) != len(first) || got[0] != "2 fell-back" || slices.Contains(got[1:], "2 fell-back") {
			t.Errorf("the server got %q", got)
		}
	}

	w.channel("withdraw", "2")
	expect("withdrawn", all(list, "update"), 3, fleetSize)
	w.Sh("cp pub/channel.toml new.toml; cp pub/channel.toml.sig new.sig; cp old.toml pub/channel.toml; cp old.sig pub/channel.toml.sig")
	expect("a replayed channel", all(list, "update"), 12, fleetSize)
	w.Sh("cp new.toml pub/channel.toml; cp new.sig pub/channel.toml.sig")
	w.channel("renew", "--valid", "1s")
	time.Sleep(2 * time.Second)
	expect("an expired channel", all(list, "update"), 12, fleetSize)
	w.channel("renew")
	w.end()
	expect("a server that is gone", all(rest[:2], "update"), 13, 2)
	w.begin()

	w.publish("3", 3)
	expect("the hotfix", all(list, "update"), 0, fleetSize)
	proved(list)
	if got := w.reported(); len(got) != fleetSize || slices.ContainsFunc(got, func(r string) bool { return r != "3 good" }) {
		t.Errorf("the server got %q", got)
	}
}

// full is a device whose state store is a file in a full file system: it fails before anything is written, and reports once there is room.
func (w *web) full(like unit) {
	w.Helper()
	d := unit{&line{Rig: rig.New(w.T), follow: strings.Replace(like.follow, like.name, "unit-full", 1), store: "full/state"}, "unit-full"}
	d.boots("A")
	d.Sh("mkdir full; mount -t tmpfs -o size=128k none full; dd if=/dev/zero of=full/other bs=4k 2>/dev/null || true")
	defer d.Sh("umount full")
	d.run(16, "no space left on device", "update")
	d.Pristine0()
	d.Sh("rm full/other")
	d.run(3, "no report waits", "report", "--now")
	d.run(0, "installed version 1 into slot B", "update")
	d.restart()
	d.run(0, "", "mark", "good")
	d.run(0, "1 reports sent", "report", "--now")
	if got := w.reported(); !slices.Equal(got, []string{"1 good"}) {
		w.Errorf("the server got %q", got)
	}
}
