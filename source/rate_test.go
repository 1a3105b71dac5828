package source_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"updater/source"
)

// A server that drips is given up after the window, though it is never silent; a slow reader does not count against the server.
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

// Downloads together stay below the limit, within 5 %, and a paced download is not given up as too slow.
func TestMaxRate(t *testing.T) {
	noLeak(t)
	const rate = 200_000
	data := sample(300_000)
	server := serve(t, data, nil)
	c := client(t, source.HTTPOptions{MaxRate: rate, GiveUp: 500 * time.Millisecond, Stall: time.Second})
	start, done := time.Now(), make(chan error, 2)
	for range 2 {
		go func() {
			_, err := c.Fetch(t.Context(), server.URL, 1<<20)
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	least := time.Duration(0.95 * float64(2*len(data)) / rate * float64(time.Second))
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes came in %s, expected at least %s", 2*len(data), took, least)
	} else {
		t.Logf("%.0f bytes per second, limit %d", float64(2*len(data))/took.Seconds(), rate)
	}
}
