//go:build vm

package units

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"updater/fleet"
	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// device is a device that follows a channel, with its publisher and the server of both.
type device struct {
	*testing.T
	builder *abdisk.Builder
	dir     string // files of the server, and disks
	url     string // of the server, as the guest sees it
	reports chan fleet.Report
	refuse  atomic.Int32 // number of further reports that are answered by 503
}

// newDevice starts the server, with a channel that lists nothing.
func newDevice(t *testing.T) *device {
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	if missing := abdisk.Missing(); missing != nil {
		t.Skip("missing Debian packages: ", strings.Join(missing, " "))
	}
	cache := os.Getenv("UPDATER_VM_DIR") // keeps the artefacts between runs
	if cache == "" {
		cache = t.TempDir()
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	d := &device{
		T: t, dir: t.TempDir(), reports: make(chan fleet.Report, 100),
		builder: &abdisk.Builder{Dir: cache, Updater: filepath.Join(root, "bin/updater"), Log: t.Output()},
	}
	d.run("make", "-s", "-C", root, "build")
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir(d.dir)))
	mux.HandleFunc("POST /report", func(w http.ResponseWriter, r *http.Request) {
		var got fleet.Report
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		if d.refuse.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		d.reports <- got
		w.WriteHeader(http.StatusNoContent)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	d.url = "http://10.0.2.2:" + port
	d.channel("create", "--product", "demo")
	return d
}

// run runs a program of the host in the device's folder and returns its output.
func (d *device) run(name string, args ...string) string {
	d.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// channel changes the channel, and signs it.
func (d *device) channel(verb string, args ...string) {
	d.Helper()
	d.run(d.builder.Updater, append([]string{"channel", verb, "-f", "channel.toml"}, args...)...)
	if _, err := d.builder.Sign(d.Context(), filepath.Join(d.dir, "channel.toml")); err != nil {
		d.Fatal(err)
	}
}

// publish makes a release of an image and lists it.
func (d *device) publish(version, image string) {
	d.Helper()
	d.release(version, image)
	d.channel("add", version)
}

func (d *device) release(version, image string) {
	d.Helper()
	flags := []string{"--product", "demo", "--version", version, "--rollback-index", version}
	if _, err := d.builder.Release(d.Context(), filepath.Join(d.dir, version), flags, "rootfs="+image); err != nil {
		d.Fatal(err)
	}
}

// config is the demo's configuration with a state store, the channel, the address of reports, and further tables.
func (d *device) config(tables string) string {
	d.Helper()
	key, err := d.builder.Keys(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	colons := d.run("gpg", "--with-colons", "--show-keys", key)
	fingerprint := regexp.MustCompile(`(?m)^fpr:+([0-9A-F]+):`).FindStringSubmatch(colons)
	if fingerprint == nil {
		d.Fatalf("no fingerprint in %s", colons)
	}
	return "state = \"PARTLABEL=state\"\n" + abdisk.Config + fmt.Sprintf(`
[channel]
url = "%[1]s/channel.toml"

[report]
url = "%[1]s/report"

[[trust.key]]
fingerprint = "%[2]s"
documents = ["release", "bmap", "channel"]
%[3]s`, d.url, fingerprint[1], tables)
}

// slot builds an image of a version from a common configuration.
func (d *device) slot(version string, c abdisk.SlotConfig) string {
	d.Helper()
	c.Version = version
	c.Files = maps.Clone(c.Files)
	if c.Files["etc/updater/config.toml"] == "" {
		c.Files["etc/updater/config.toml"] = d.config("")
	}
	c.Files["etc/os-release"] = "ID=demo\nVERSION_ID=" + version + "\n"
	image, err := d.builder.Slot(d.Context(), c)
	if err != nil {
		d.Fatal(err)
	}
	return image
}

// install makes the device's disks: GRUB with an image in slot A, and a data file system.
func (d *device) install(image, kernelArgs string) {
	d.Helper()
	err := d.builder.Disk(d.Context(), abdisk.DiskConfig{Path: filepath.Join(d.dir, "disk.img"), SlotA: image, Append: kernelArgs, WatchdogTimeout: 15 * time.Minute})
	if err != nil {
		d.Fatal(err)
	}
	d.run("mke2fs", "-q", "-t", "ext4", "-L", "data", "data.img", "16M")
}

// boot switches the device on.
func (d *device) boot(name string) *machine {
	d.Helper()
	m, err := qemu.Start(d.Context(), qemu.Config{
		Name: name, OVMFVars: filepath.Join(d.dir, "vars.fd"), Timeout: 10 * time.Minute, Log: log{d, name, time.Now()},
		Disks: []qemu.Disk{{Path: filepath.Join(d.dir, "disk.img")}, {Path: filepath.Join(d.dir, "data.img")}},
		Args:  []string{"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="},
	})
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(m.PowerCut)
	return &machine{m, d}
}

// log prefixes the lines of a console with the machine and the time.
type log struct {
	d     *device
	name  string
	start time.Time
}

func (l log) Write(p []byte) (int, error) {
	_, err := fmt.Fprintf(l.d.Output(), "%s %5.1f  %s", l.name, time.Since(l.start).Seconds(), p)
	return len(p), err
}

type machine struct {
	*qemu.Machine
	d *device
}

// expect waits for lines of the console, in turn, and returns the submatches of the last.
func (m *machine) expect(patterns ...string) (match []string) {
	m.d.Helper()
	for _, p := range patterns {
		var err error
		if match, err = m.Expect(p); err != nil {
			m.d.Fatal(err)
		}
	}
	return match
}

// restarts waits for the reset at the end.
func (m *machine) restarts() {
	m.d.Helper()
	if err := m.Wait(); err != nil {
		m.d.Fatal(err)
	}
	if m.End() != qemu.Reset {
		m.d.Fatalf("the machine ended by %s, expected a reset", m.End())
	}
}

// reported waits for the next report, and checks its content.
func (m *machine) reported(version, outcome string) fleet.Report {
	m.d.Helper()
	for ended := false; ; ended = m.Ended(100 * time.Millisecond) {
		select {
		case r := <-m.d.reports:
			if r.Version != version || string(r.Outcome) != outcome {
				m.d.Fatalf("report of version %q, %q; want %q, %q (%+v)", r.Version, r.Outcome, version, outcome, r)
			}
			return r
		default:
			if ended {
				m.d.Fatalf("the machine ended (%s) before the report of version %s, %s", m.End(), version, outcome)
			}
		}
	}
}

// read reads a file of the tree.
func (d *device) read(name string) string {
	d.Helper()
	data, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		d.Fatal(err)
	}
	return string(data)
}

// long skips a slow test unless UPDATER_VM_LONG is set.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("UPDATER_VM_LONG") == "" {
		t.Skip("one of the longer tests; make test-recovery runs it")
	}
}
