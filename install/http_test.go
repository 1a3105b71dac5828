package install_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"updater/internal/rig"
)

// TestInstallFromHTTP installs from an address: the bmap and its signature first, then the image.
func TestInstallFromHTTP(t *testing.T) {
	fixtures := t.TempDir()
	rig.Fixtures(t, fixtures)
	var mu sync.Mutex
	var asked []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		if r.URL.Path == "/big.img.bmap.asc" {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
			return
		}
		http.ServeFile(w, r, filepath.Join(fixtures, filepath.Base(r.URL.Path)))
	}))
	defer web.Close()
	config := filepath.Join(fixtures, "grub.toml")
	install := func(source string, args ...string) (code int, out string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(strings.Replace(rig.Configs["grub"], "disk.img", "grub.img", 1)+source), 0o600); err != nil {
			t.Fatal(err)
		}
		code, text, errs := rig.Run(t, append([]string{"install", "--config", config}, args...)...)
		return code, text + errs
	}
	for _, c := range []struct {
		name, source, address string
		code                  int
		want                  string
	}{
		{"nobody listens", "[source]\ngive_up = \"50ms\"\n", "http://127.0.0.1:1/image.img", 13, "connection refused"},
		{"not there", "", web.URL + "/none.img", 13, "tried none.img.bmap, none.bmap"},
		{"a huge signature", "", web.URL + "/big.img", 13, "longer than 65536 bytes"},
		{"too large", "[source]\nmax_size = \"4M\"\n", web.URL + "/image.img", 13, "allowed are 4194304"},
		{"an unknown key", "[source]\nretries = 3\n", web.URL + "/image.img", 2, "unknown key"},
		{"a token for nobody", "[source]\ntoken_file = \"x\"\n", web.URL + "/image.img", 2, "token_host"},
		{"a wrong time", "[source]\ntimeout = \"-1s\"\n", web.URL + "/image.img", 2, "not a positive time"},
		{"no host", "", "http:///image.img", 2, "invalid address"},
		{"it works", "[source]\nstall_timeout = \"5s\"\n", web.URL + "/image.img", 0, "slot B boots next"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, out := install(c.source, c.address); code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, c.code, c.want, out)
			}
		})
	}
	bmap, sig, image := slices.Index(asked, "/image.img.bmap"), slices.Index(asked, "/image.img.bmap.asc"), slices.Index(asked, "/image.img")
	if sig < 0 || bmap < sig || image < bmap {
		t.Errorf("asked for %v; want signature, bmap, image", asked)
	}
	// A bmap and a signature from elsewhere.
	code, out := install("", "--bmap", web.URL+"/image.img.bmap", "--sig", filepath.Join(fixtures, "image.sig"), filepath.Join(fixtures, "image.img"), "--slot", "B")
	if code != 0 {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// TestDeltaFromHTTP installs an image of which the running slot has nearly all, some of it at another place: only
// the rest is fetched, and the slot holds the image.
func TestDeltaFromHTTP(t *testing.T) {
	fixtures := t.TempDir()
	rig.Fixtures(t, fixtures)
	sh := func(script string) {
		t.Helper()
		cmd := exec.Command("bash", "-euc", script)
		cmd.Dir = fixtures
		cmd.Env = append(os.Environ(), "GNUPGHOME="+filepath.Join(fixtures, "gnupg"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		code, out, errs := rig.Run(t, args...)
		if code != 0 {
			t.Fatalf("%v: exit %d:\n%s%s", args, code, out, errs)
		}
		return out + errs
	}
	in := func(name string) string { return filepath.Join(fixtures, name) }
	// Slot A runs 4 MiB; the new image has another MiB in the middle, and one that was elsewhere.
	sh(`head -c 6M /dev/urandom > old.img
		cp old.img new.img
		dd if=/dev/urandom of=new.img bs=64K seek=30 count=3 conv=notrunc status=none
		dd if=old.img of=new.img bs=64K skip=8 seek=50 count=4 conv=notrunc status=none
		dd if=old.img of=grub.img bs=1M seek=9 conv=notrunc status=none`)
	run("bmap", "create", "--max-range", "64K", "-o", in("new.img.bmap"), in("new.img"))
	run("pack", in("new.img"))
	sh(`gpg -q --batch -u release@example.com --armor --detach-sign new.img.bmap`)
	config := in("delta.toml")
	if err := os.WriteFile(config, []byte(strings.Replace(rig.Configs["grub"], "disk.img", "grub.img", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".zst") && r.Header.Get("Range") != "" {
			w = countingWriter{w, &sent}
		}
		http.ServeFile(w, r, in(filepath.Base(r.URL.Path)))
	}))
	defer web.Close()
	out := run("install", "--config", config, web.URL+"/new.img.zst")
	if !strings.Contains(out, "5.8 MiB copied from the other slot; fetching 192.") || !strings.Contains(out, "in 1 requests") {
		t.Errorf("the plan is not told, or another:\n%s", out)
	}
	// The first look at the file and its seek table take 64 KiB each.
	if sent.Load() > (128+192+20)<<10 {
		t.Errorf("%d bytes were fetched in parts; want little more than 128 + 192 KiB", sent.Load())
	}
	slot, image := make([]byte, 6<<20), make([]byte, 6<<20)
	for name, b := range map[string]struct {
		buf []byte
		at  int64
	}{"grub.img": {slot, rig.SlotOffset("grub", "B")}, "new.img": {image, 0}} {
		f, err := os.Open(in(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.ReadAt(b.buf, b.at); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(slot, image) {
		t.Error("the slot does not hold the image")
	}
	// Again: everything is there already; only the beginning of the file and its seek table are fetched.
	sent.Store(0)
	out = run("install", "--json", "--config", config, "--slot", "B", web.URL+"/new.img.zst")
	if !strings.Contains(out, `"ev":"fetch"`) || !strings.Contains(out, `"parts":true,"bytes":0,"requests":0`) || sent.Load() > (128+20)<<10 {
		t.Errorf("%d bytes were fetched again:\n%s", sent.Load(), out)
	}
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}
