package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"updater/provision/identity"
	"updater/provision/provisiontest"
	"updater/source"
)

func writeSerials(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("mac,serial\n")
	for i := range n {
		fmt.Fprintf(&b, "02:00:00:00:00:%02x,AG%03d\n", i, i)
	}
	path := filepath.Join(t.TempDir(), "serials.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// web posts with the program's own client.
func web(t *testing.T) *identity.Web {
	t.Helper()
	client, err := source.NewClient(source.HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &identity.Web{Client: client}
}

// TestAllocators is the contract of identity.Allocator. open opens the same store again, as a run after a power cut does.
func TestAllocators(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, path string) identity.Allocator{
		"csv": func(_ *testing.T, path string) identity.Allocator { return identity.NewCSV(path) },
		"http": func(t *testing.T, path string) identity.Allocator {
			server := httptest.NewServer(http.StripPrefix("/line", provisiontest.ServeAllocator(identity.NewCSV(path))))
			t.Cleanup(server.Close)
			return &identity.HTTPAllocator{URL: server.URL + "/line/", Station: "bench", Web: web(t)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("keeps, spends and gives back", func(t *testing.T) { allocatorLife(t, open) })
			t.Run("many at once", func(t *testing.T) { allocatorRace(t, open) })
		})
	}
}

func allocatorLife(t *testing.T, open func(*testing.T, string) identity.Allocator) {
	path, ctx := writeSerials(t, 3), t.Context()
	one, two, three, place := identity.Claim{Unit: "cid:1", Strong: true}, identity.Claim{Unit: "cid:2", Strong: true}, identity.Claim{Unit: "cid:3",
		Strong: true}, identity.Claim{Unit: "place:slot1"}
	reserve := func(c identity.Claim, want string) {
		t.Helper()
		r, err := open(t, path).Reserve(ctx, c) // a new one each time: nothing may live in memory
		if err != nil || r.Serial != want || want == "AG001" && r.Variables["mac"] != "02:00:00:00:00:01" {
			t.Fatalf("Reserve(%s) = %+v, %v; want %s", c.Unit, r, err, want)
		}
	}
	do := func(what func(identity.Allocator) error) {
		t.Helper()
		for range 2 { // both may be repeated
			if err := what(open(t, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	reserve(one, "AG000")
	reserve(one, "AG000")
	reserve(two, "AG001")
	do(func(a identity.Allocator) error { return a.Commit(ctx, one, "AG000") })
	reserve(one, "AG000") // a unit that was done keeps its serial
	do(func(a identity.Allocator) error { return a.Release(ctx, two, "AG001") })
	reserve(two, "AG001") // a failed one gets it again while it is free
	do(func(a identity.Allocator) error { return a.Release(ctx, two, "AG001") })
	reserve(place, "AG002") // it had nothing; a serial that another unit had is left for that unit where possible
	reserve(three, "AG001") // but it is not consumed
	if _, err := open(t, path).Reserve(ctx, two); !errors.Is(err, identity.ErrNoSerial) {
		t.Fatalf("Reserve with none left: %v", err)
	}
	do(func(a identity.Allocator) error { return a.Commit(ctx, place, "AG002") })
	if r, err := open(t, path).Reserve(ctx, place); err == nil {
		t.Fatalf("the next unit on the same place got %s again", r.Serial)
	}
	if err := open(t, path).Commit(ctx, two, "AG000"); err == nil {
		t.Error("a unit spent the serial of another")
	}
	do(func(a identity.Allocator) error { return a.Release(ctx, three, "AG001") })
	reserve(identity.Claim{Unit: "cid:9", Strong: true, Held: "AG001"}, "AG001")
}

func allocatorRace(t *testing.T, open func(*testing.T, string) identity.Allocator) {
	path := writeSerials(t, 20)
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]string{}
	for i := range 20 {
		wg.Go(func() {
			c := identity.Claim{Unit: fmt.Sprintf("cid:%d", i), Strong: true}
			r, err := open(t, path).Reserve(context.Background(), c)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || got[r.Serial] != "" {
				t.Errorf("%s got %+v, %v; %s has it", c.Unit, r, err, got[r.Serial])
			}
			got[r.Serial] = c.Unit
		})
	}
	wg.Wait()
}

// TestTornJournal cuts the journal of serials at every byte: a confirmed serial stays, and one that was not confirmed
// is as if it had never been requested.
func TestTornJournal(t *testing.T) {
	path, ctx := writeSerials(t, 4), t.Context()
	a := identity.NewCSV(path)
	for i := range 3 {
		if _, err := a.Reserve(ctx, identity.Claim{Unit: fmt.Sprintf("cid:%d", i), Strong: true}); err != nil {
			t.Fatal(err)
		}
	}
	journal, err := os.ReadFile(path + ".journal")
	if err != nil {
		t.Fatal(err)
	}
	whole := len(strings.SplitAfter(string(journal), "\n")[0]) + len(strings.SplitAfter(string(journal), "\n")[1])
	for cut := whole; cut <= len(journal); cut++ {
		if err := os.WriteFile(path+".journal", journal[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			want := fmt.Sprintf("AG%03d", i)
			if r, err := identity.NewCSV(path).Reserve(ctx, identity.Claim{Unit: fmt.Sprintf("cid:%d", i), Strong: true}); err != nil || r.Serial != want {
				t.Fatalf("cut at %d: unit %d got %+v, %v; want %s", cut, i, r, err, want)
			}
		}
	}
}

func TestHTTPAllocatorRetries(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 3 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"serial":"AG7"}`)
	}))
	defer server.Close()
	w := web(t)
	w.Tries, w.Pause = 3, time.Millisecond
	a := &identity.HTTPAllocator{URL: server.URL, Station: "bench", Web: w}
	if r, err := a.Reserve(t.Context(), identity.Claim{Unit: "cid:1"}); err != nil || r.Serial != "AG7" || tries != 3 {
		t.Errorf("Reserve = %+v, %v after %d tries; want AG7 after 3", r, err, tries)
	}
	for body, want := range map[string]string{`{}`: "no serial in it", `{"serial":"x","price":1}`: `unknown field "price"`, strings.Repeat(" ",
		2<<20): "longer than"} {
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		if _, err := a.Reserve(t.Context(), identity.Claim{Unit: "cid:1"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answer %.20q: %v; want %q", body, err, want)
		}
	}
}

// TestAnswerIsARefusal: a request that the server refuses is not retried.
func TestAnswerIsARefusal(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tries++
		http.Error(w, "unit is unknown", http.StatusForbidden)
	}))
	defer server.Close()
	w := web(t)
	w.Tries, w.Pause = 3, time.Millisecond
	_, err := (&identity.HTTPAllocator{URL: server.URL, Web: w}).Reserve(t.Context(), identity.Claim{Unit: "cid:1"})
	if refused, ok := errors.AsType[*identity.AnswerError](err); !ok || refused.Status != http.StatusForbidden ||
		refused.Body != "unit is unknown" || tries != 1 {
		t.Errorf("Reserve = %v after %d tries; want an AnswerError 403 after one", err, tries)
	}
}

func TestSerialSources(t *testing.T) {
	ask := func(answer string) identity.Allocator {
		return identity.Prompt(func(_ context.Context, q string) (string, error) {
			if !strings.Contains(q, "slot1") {
				t.Errorf("the question %q does not name the unit", q)
			}
			return answer, nil
		})
	}
	claim := identity.Claim{Unit: "place:slot1", Held: "OLD1"}
	for _, c := range []struct {
		name string
		a    identity.Allocator
		want string
	}{
		{"plan", identity.Fixed("P1"), "P1"},
		{"own", identity.Own(func(_ context.Context, c identity.Claim) (string, error) { return "of-" + c.Unit, nil }), "of-place:slot1"},
		{"scanner", ask("S9\r\n"), "S9"},
		{"return keeps", ask("\n"), "OLD1"},
	} {
		if r, err := c.a.Reserve(t.Context(), claim); err != nil || r.Serial != c.want {
			t.Errorf("%s: Reserve = %+v, %v; want %s", c.name, r, err, c.want)
		}
	}
}
