package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestInstallFromHTTP installs from an address: the bmap and its signature first, then the image.
func TestInstallFromHTTP(t *testing.T) {
	fixtures := makeFixtures(t)
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
		if err := os.WriteFile(config, []byte(strings.Replace(configs["grub"], "disk.img", "grub.img", 1)+source), 0o600); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		code = Run(t.Context(), append([]string{"install", "--config", config}, args...), Env{Stdout: &b, Stderr: &b})
		return code, b.String()
	}
	for _, c := range []struct {
		name, source, address string
		code                  int
		want                  string
	}{
		{"nobody listens", "[source]\ngive_up = \"50ms\"\n", "http://127.0.0.1:1/image.img", ExitSource, "connection refused"},
		{"not there", "", web.URL + "/none.img", ExitUsage, "tried none.img.bmap, none.bmap"},
		{"a huge signature", "", web.URL + "/big.img", ExitSource, "longer than 65536 bytes"},
		{"too large", "[source]\nmax_size = \"4M\"\n", web.URL + "/image.img", ExitSource, "allowed are 4194304"},
		{"an unknown key", "[source]\nretries = 3\n", web.URL + "/image.img", ExitUsage, "unknown key"},
		{"a token for nobody", "[source]\ntoken_file = \"x\"\n", web.URL + "/image.img", ExitUsage, "token_host"},
		{"a wrong time", "[source]\ntimeout = \"-1s\"\n", web.URL + "/image.img", ExitUsage, "no positive time"},
		{"no host", "", "http:///image.img", ExitUsage, "no address"},
		{"it works", "[source]\nstall_timeout = \"5s\"\n", web.URL + "/image.img", ExitDone, "slot B boots next"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, out := install(c.source, c.address); code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, c.code, c.want, out)
			}
		})
	}
	bmap, sig, image := slices.Index(asked, "/image.img.bmap"), slices.Index(asked, "/image.img.bmap.asc"), slices.Index(asked, "/image.img")
	if bmap < 0 || sig < bmap || image < sig {
		t.Errorf("asked for %v; want bmap, signature, image", asked)
	}
	// A bmap and a signature from elsewhere.
	code, out := install("", "--bmap", web.URL+"/image.img.bmap", "--sig", filepath.Join(fixtures, "image.sig"), filepath.Join(fixtures, "image.img"), "--slot", "B")
	if code != ExitDone {
		t.Errorf("exit %d:\n%s", code, out)
	}
}
