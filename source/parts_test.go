package source_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updater/pack"
	"updater/source"
)

// want is every n-th range of the packed image's data.
func want(t testing.TB, file []byte, every int) (ranges []pack.Range) {
	t.Helper()
	frames, err := pack.ReadTable(bytes.NewReader(file), int64(len(file)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if i%every == 0 && f.Length > 0 {
			ranges = append(ranges, pack.Range{Offset: f.Offset, Length: f.Length})
		}
	}
	return ranges
}

// manyFrames is a packed image that does not compress, in frames of 32 KiB.
func manyFrames(t testing.TB) (image, file []byte) {
	t.Helper()
	image = make([]byte, 8<<20)
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range image {
		image[i] = byte(rng.Uint32())
	}
	var ranges []pack.Range
	for off := int64(0); off < int64(len(image)); off += pack.MaxFrame {
		ranges = append(ranges, pack.Range{Offset: off, Length: pack.MaxFrame})
	}
	var out bytes.Buffer
	if err := pack.Write(t.Context(), &out, pack.Image{Data: bytes.NewReader(image), Size: int64(len(image)), Ranges: ranges}, 1); err != nil {
		t.Fatal(err)
	}
	return image, out.Bytes()
}

func TestPlanFetchesParts(t *testing.T) {
	noLeak(t)
	image, file := manyFrames(t)
	for _, c := range []struct {
		name   string
		want   []pack.Range
		parts  bool
		most   int64 // bytes that the server sends, with those of the whole file that were under way
		reason string
	}{
		{"a few", want(t, file, 40), true, 1 << 20, ""},
		{"neighbours", []pack.Range{{Offset: 1 << 20, Length: 1 << 20}, {Offset: 2<<20 + 64<<10, Length: 5}}, true, 2 << 20, ""},
		{"the end", []pack.Range{{Offset: 8<<20 - 10, Length: 10}}, true, 1 << 20, ""},
		{"nothing", nil, true, 1 << 20, ""},
		{"all", want(t, file, 1), false, 9 << 20, "as much as the whole file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sent atomic.Int64
			s := serve(t, file, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 3 { // a link that breaks in the middle of a part
					return cutAfter(w, r, file, 1000)
				}
				http.ServeContent(countingWriter{w, &sent}, r, "", time.Time{}, bytes.NewReader(file))
				return true
			})
			img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			plan, err := img.Plan(c.want)
			if err != nil || plan.Parts != c.parts || plan.Whole != int64(len(file)) || !strings.Contains(plan.Reason, c.reason) {
				t.Fatalf("Plan = %+v, %v", plan, err)
			}
			for _, r := range c.want {
				if err := img.Skip(r.Offset - img.Offset()); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, r.Length)
				if _, err := io.ReadFull(img, got); err != nil || !bytes.Equal(got, image[r.Offset:r.Offset+r.Length]) {
					t.Fatalf("range at %d: %v", r.Offset, err)
				}
			}
			if err := img.Skip(int64(len(image)) - img.Offset()); err != nil {
				t.Fatal(err)
			}
			if err := img.End(); err != nil {
				t.Errorf("End() = %v", err)
			}
			if err := img.Skip(1); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Skip past the end = %v", err)
			}
			if sent.Load() > c.most {
				t.Errorf("the server sent %d bytes, expected at most %d; the plan was %+v", sent.Load(), c.most, plan)
			}
		})
	}
}

// Short parts are fetched four at a time, also over a link that breaks in each of them, and from a server that no longer serves ranges.
func TestPartsAhead(t *testing.T) {
	noLeak(t)
	image, file := manyFrames(t)
	for _, how := range []string{"sound", "cut", "whole"} {
		var cut sync.Map // ranges
		var under, most atomic.Int64
		full := make(chan struct{})
		s := serve(t, file, func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= 2 { // the beginning and the table
				return false
			}
			if under.Add(1) == 4 && most.Swap(4) == 0 {
				close(full)
			}
			select {
			case <-full:
			case <-time.After(20 * time.Second):
				t.Error("fewer than 4 requests are under way")
			}
			most.Store(max(most.Load(), under.Load()))
			defer under.Add(-1)
			if _, again := cut.LoadOrStore(r.Header.Get("Range"), true); how == "cut" && !again {
				return cutAfter(w, r, file, n*977%pack.MaxFrame)
			}
			if how == "whole" {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
			return true
		})
		img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		ranges := want(t, file, 16)
		plan, err := img.Plan(ranges)
		if err != nil || plan.Requests != len(ranges) {
			t.Fatalf("Plan = %+v, %v; want %d requests", plan, err, len(ranges))
		}
		for _, r := range ranges {
			got := make([]byte, r.Length)
			if err := img.Skip(r.Offset - img.Offset()); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(img, got); err != nil || !bytes.Equal(got, image[r.Offset:r.Offset+r.Length]) {
				t.Fatalf("%s, range at %d: %v", how, r.Offset, err)
			}
		}
		img.Close()
		if most.Load() > 8 { // four answers may have ended for the client alone
			t.Errorf("%d requests at a time", most.Load())
		}
	}
}

// A frame counts for the range that needs all of it, and for none where it is shared.
func TestCosts(t *testing.T) {
	noLeak(t)
	image, file := manyFrames(t)
	frames, err := pack.ReadTable(bytes.NewReader(file), int64(len(file)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	const frame = pack.MaxFrame
	ranges := []pack.Range{{Offset: 0, Length: frame}, {Offset: frame, Length: frame + 1}, {Offset: 2*frame + 1, Length: 2 * frame}, {Offset: 8<<20 - 1, Length: 1}}
	for name, c := range map[string]struct {
		data []byte
		want []int64
	}{
		"packed": {file, []int64{frames[0].Packed, frames[1].Packed, frames[3].Packed, 0}},
		"raw":    {image, nil},
	} {
		s := serve(t, c.data, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.data))
			return true
		})
		img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if got := img.Costs(ranges); !slices.Equal(got, c.want) {
			t.Errorf("%s: Costs = %d; want %d", name, got, c.want)
		}
		if plan, err := img.Plan(ranges); err != nil || !plan.Parts {
			t.Errorf("%s: Plan = %+v, %v", name, plan, err)
		}
		img.Close()
	}
}

// Bytes that were not planned cannot be read, and a file without a table, or on a server without ranges, is fetched whole.
func TestPlanFallsBack(t *testing.T) {
	noLeak(t)
	image, file := manyFrames(t)
	c := client(t, source.HTTPOptions{})
	img, err := c.Open(t.Context(), serve(t, file, nil).URL, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := img.Plan(want(t, file, 40)); err != nil {
		t.Fatal(err)
	}
	if err := img.Skip(5<<20 + 200<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Read(make([]byte, 10)); err == nil || !strings.Contains(err.Error(), "not planned") {
		t.Errorf("an unplanned Read: %v", err)
	}
	img.Close()

	for name, answer := range map[string]struct {
		file   []byte
		ranges bool
		reason string
	}{
		"no table":  {compress(t, image, "zstd", "-c", "-1"), true, "no seek table"},
		"no ranges": {file, false, "serves no ranges"},
		"a lie":     {append(bytes.Clone(file[:len(file)-30]), file[len(file)-22:]...), true, "seek table"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer.file, func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !answer.ranges {
					_, _ = w.Write(answer.file)
				}
				return !answer.ranges
			})
			img, err := c.Open(t.Context(), s.URL, source.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			plan, err := img.Plan(want(t, file, 40))
			if err != nil || plan.Parts || !strings.Contains(plan.Reason, answer.reason) {
				t.Errorf("Plan = %+v, %v; want the whole, %s", plan, err, answer.reason)
			}
			if name == "a lie" {
				return
			}
			if got, err := io.ReadAll(img); err != nil || !bytes.Equal(got, image) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// The file changes between the plan and a part. Another ETag alone does not mean another file; another size does, and so do bytes that do not decode.
func TestPlanNoticesChange(t *testing.T) {
	noLeak(t)
	_, file := manyFrames(t)
	other := bytes.Clone(file)
	for at := range other {
		other[at] ^= 0xff
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"ETag only", file, ""},
		{"bytes", other, "has changed"},
		{"size", file[:len(file)-100], "has changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var changed atomic.Bool
			s := serve(t, file, func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !changed.Load() {
					return false
				}
				w.Header().Set("ETag", `"v2"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.file))
				return true
			})
			img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if _, err := img.Plan(want(t, file, 40)); err != nil {
				t.Fatal(err)
			}
			changed.Store(true)
			_, err = img.Read(make([]byte, 10))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a part of another file: %v", err)
			}
		})
	}
}

// The signed map bounds the seek table, which is not signed.
func TestLimitFrames(t *testing.T) {
	_, file := manyFrames(t)
	s := serve(t, file, nil)
	img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	img.LimitFrames(3)
	if plan, err := img.Plan(want(t, file, 40)); err != nil || plan.Parts || !strings.Contains(plan.Reason, "frames") {
		t.Errorf("Plan() = %+v, %v; want a table of too many frames to be refused", plan, err)
	}
}
