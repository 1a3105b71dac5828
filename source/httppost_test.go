package source_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"updater/source"
)

func TestPost(t *testing.T) {
	noLeak(t)
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || string(body) != `{"n":1}` || r.Header.Get("Idempotency-Key") != "k1" {
			t.Errorf("%s %v %q; want the message", r.Method, r.Header, body)
		}
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/here", http.StatusTemporaryRedirect)
		case "/busy":
			http.Error(w, "later", http.StatusServiceUnavailable)
		case "/long":
			_, _ = w.Write(make([]byte, 2000))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		case "/silent":
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, "stored")
		}
	}))
	t.Cleanup(s.Close)
	c := client(t, source.HTTPOptions{Stall: 300 * time.Millisecond})
	for _, tt := range []struct {
		path   string
		status int
		answer string
		err    string
	}{
		{"/here", 200, "stored", ""},
		{"/moved", 307, "", ""},
		{"/busy", 503, "later\n", ""},
		{"/long", 0, "", "longer than 1000 bytes"},
		{"/cut", 0, "", "unexpected EOF"},
		{"/silent", 0, "", "sends nothing"},
	} {
		requests.Store(0)
		status, answer, err := c.Post(t.Context(), source.Message{
			URL: s.URL + tt.path + "?token=secret", Type: "application/json", Body: []byte(`{"n":1}`), Header: map[string]string{"Idempotency-Key": "k1"}, Limit: 1000,
		})
		if status != tt.status || string(answer) != tt.answer || requests.Load() != 1 {
			t.Errorf("%s: %d %q in %d requests; want %d %q in one", tt.path, status, answer, requests.Load(), tt.status, tt.answer)
		}
		if tt.err == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.path, err)
			}
			continue
		}
		e, ok := errors.AsType[*source.FetchError](err)
		if !ok || !strings.Contains(e.Error(), tt.err) || !strings.HasPrefix(e.Error(), "posting to ") || strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: %v; want a FetchError with %q and without the query", tt.path, err, tt.err)
		}
	}
	if _, _, err := c.Post(t.Context(), source.Message{URL: "records.json"}); err == nil {
		t.Error("a path is accepted as an address")
	}
}

func TestPostSendsCredentials(t *testing.T) {
	certFile, keyFile, pair := selfSigned(t, t.TempDir(), "127.0.0.1")
	var token, name string
	s := membersOnly(t, pair, func(w http.ResponseWriter, r *http.Request) {
		token, name = r.Header.Get("Authorization"), r.TLS.PeerCertificates[0].Subject.CommonName
	})
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := client(t, source.HTTPOptions{CA: trust(t, s), ClientCert: certFile, ClientKey: keyFile, TokenFile: tokenFile, TokenHost: strings.TrimPrefix(s.URL, "https://")})
	status, _, err := c.Post(t.Context(), source.Message{URL: s.URL})
	if err != nil || status != 200 || token != "Bearer abc" || name != "device" {
		t.Errorf("status %d, %v, token %q, certificate %q; want 200 with both", status, err, token, name)
	}
}

func TestRedact(t *testing.T) {
	for name, want := range map[string]string{
		"image.img?x":                           "image.img?x",
		"-":                                     "-",
		"https://u:p@h.example/a%2Fb?sig=1#f":   "https://h.example/a%2Fb?...",
		"HTTP://h.example:80/a":                 "http://h.example:80/a",
		"https://:443/a?sig=secret":             "(an invalid address)",
		"file:///a":                             "file:///a",
		"https://h.example/%zz?sig=secret":      "(an invalid address)",
		"https://user:secret@/image?sig=secret": "(an invalid address)",
	} {
		if got := source.Redact(name); got != want {
			t.Errorf("Redact(%q) = %q; want %q", name, got, want)
		}
	}
}
