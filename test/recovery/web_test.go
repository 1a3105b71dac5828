//go:build vm

package recovery

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// page is a recovery with 128 MiB of memory whose web page a port of the host leads to.
type page struct {
	*helper
	*qemu.Machine
	disk, url, code string
}

func newPage(t *testing.T) *page {
	t.Helper()
	p := &page{helper: newHelper(t, anyDisk+"\n[recovery]\nmode = \"recover\"\nweb = true\n", "virtio,fs,watchdog")}
	p.disk = p.helper.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")
	port := freePort(t)
	p.url = fmt.Sprintf("http://127.0.0.1:%d/", port)
	p.Machine = p.start(t, qemu.Config{
		Name: "web", MemMiB: 128, Disks: []qemu.Disk{{Path: p.disk}}, Timeout: 30 * time.Minute,
		Args: []string{"-netdev", fmt.Sprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%d-:80", port), "-device", "virtio-net-pci,netdev=n0"},
	})
	match, err := p.Expect(`web page: code ([A-Z2-7]{4}-[A-Z2-7]{4}), at http://10\.0\.2\.15/`)
	if err != nil {
		t.Fatal(err)
	}
	p.code = match[1]
	return p
}

// release makes the files of a release of one image, documents first.
func (p *page) release(t *testing.T, image string) []string {
	t.Helper()
	dir := filepath.Join(p.dir, "release")
	files, err := p.builder.Release(t.Context(), dir, []string{"--product", "demo", "--version", "2", "--rollback-index", "2"}, "rootfs="+image)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, name := range []string{"release.toml", "release.toml.asc", "rootfs.img.bmap", "rootfs.img.zst"} {
		list = append(list, files[name])
	}
	return list
}

// TestRecoveryWeb: the page accepts a release from a client and the device restarts into it; without the code it accepts nothing.
func TestRecoveryWeb(t *testing.T) {
	p := newPage(t)
	image := p.image(t, "good", 8, 1)
	archive := filepath.Join(p.dir, "release.tar")
	run(t, p.builder.Updater, "release", "tar", "-o", archive, filepath.Dir(p.release(t, image)[0]))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	post := func(path string, body []byte) string {
		t.Helper()
		answer, err := client.Post(p.url+path, "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status + " " + string(text)
	}
	data := read(t, archive)
	for _, c := range []struct {
		path string
		body []byte
		want string
	}{
		{"upload", data, "401 "},
		{"code", []byte(`{"code":"AAAA-AAAA"}`), "403 "},
		{"code", []byte(`{"code":"` + p.code + `"}`), "200 "},
		{"upload", data[:len(data)/2], "422 "},
		{"upload", data, "200 "},
	} {
		if got := post(c.path, c.body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s; want %s", c.path, got, c.want)
		}
	}
	expect(t, p.Machine, `error: .*EOF`, `installed version 2 into slot A`, `done after .*peak memory`)
	ends(t, p.Machine, qemu.Reset)
	wantSlot(t, p.disk, "A", image)
	for _, line := range p.Lines() {
		if strings.Contains(line, p.code) && !strings.HasPrefix(line, "web page: ") {
			t.Errorf("the code is in the log: %s", line)
		}
	}
}

// TestRecoveryBrowser uses the page in Chromium: make test-browser, which installs the client that drives it. Screenshots go to SCREENSHOTS.
func TestRecoveryBrowser(t *testing.T) {
	shots := os.Getenv("SCREENSHOTS")
	if shots == "" {
		t.Skip("make test-browser runs it")
	}
	p := newPage(t)
	image := p.image(t, "good", 64, 1)
	good := p.release(t, image)
	other := &abdisk.Builder{Dir: filepath.Join(p.dir, "other"), Updater: p.builder.Updater}
	changed := func(name string, change func(dir string)) []string {
		dir := filepath.Join(p.dir, name)
		run(t, "cp", "-rL", filepath.Dir(good[0]), dir)
		change(dir)
		list := slices.Clone(good)
		for i := range list {
			list[i] = filepath.Join(dir, filepath.Base(list[i]))
		}
		return list
	}
	foreign := changed("foreign", func(dir string) {
		if err := os.MkdirAll(other.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Sign(t.Context(), filepath.Join(dir, "release.toml")); err != nil {
			t.Fatal(err)
		}
	})
	cut := changed("cut", func(dir string) {
		if err := os.Truncate(filepath.Join(dir, "rootfs.img.zst"), 5<<20); err != nil {
			t.Fatal(err)
		}
	})
	cmd := exec.CommandContext(t.Context(), "node", "../../build/browser/page.js", p.url, p.code, shots, strings.Join(good, ","), strings.Join(foreign, ","), strings.Join(cut, ","))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err, strings.Join(p.Lines(), "\n"))
	}
	expect(t, p.Machine, `installed version 2 into slot A`, `done after .*peak memory`)
	ends(t, p.Machine, qemu.Reset)
	wantSlot(t, p.disk, "A", image)
}
