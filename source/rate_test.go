package source_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"updater/source"
)

// A server that drips is given up after the window, though it is never silent; a reader that takes its time is not its fault.
func TestMinRate(t *testing.T) {
	noLeak(t)
	data := sample(1 << 20)
	drip := func(bytes int) func(n int, w http.ResponseWriter, r *http.Request) bool {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			for at := 0; at < len(data) && r.Context().Err() == nil; at += bytes {
				_, _ = w.Write(data[at:min(at+bytes, len(data))])
				_ = http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
			return true
		}
	}
	o := source.HTTPOptions{GiveUp: 400 * time.Millisecond, MinRate: 100_000}
	start := time.Now()
	_, err := get(t, client(t, o), serve(t, data, drip(10)).URL)
	if err == nil || !strings.Contains(err.Error(), "too slow") || time.Since(start) > 4*time.Second {
		t.Errorf("a drip: %v after %s", err, time.Since(start))
	}
	if _, err := get(t, client(t, o), serve(t, data, drip(10_000)).URL); err != nil {
		t.Errorf("fast enough: %v", err)
	}
	img, err := client(t, o).Open(t.Context(), serve(t, data, nil).URL, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		if _, err := img.Read(make([]byte, 1000)); err != nil {
			t.Fatalf("a slow reader: %v", err)
		}
	}
}
