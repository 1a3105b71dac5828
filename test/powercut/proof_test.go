package powercut

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updater/internal/crashdisk"
)

// scale is a number from the environment, for the long form (make proof).
func scale(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// revision names the source that was proved.
var revision = sync.OnceValue(func() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
})

// count prints one line of the table in docs/testing.md.
func count(t testing.TB, what string, n int64, since time.Time) {
	fmt.Printf("PROOF %s | %s | %s | %d | %.0f s\n", time.Now().UTC().Format(time.DateOnly), revision(), what, n, time.Since(since).Seconds())
	t.Logf("%s: %d in %v", what, n, time.Since(since).Round(time.Millisecond))
}

// seeds runs f for every seed, on both cores.
func seeds(t *testing.T, n int, f func(seed uint64) error) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Bool
	for range 2 {
		wg.Go(func() {
			for !failed.Load() {
				seed := next.Add(1)
				if seed > int64(n) {
					return
				}
				if err := f(uint64(seed)); err != nil {
					failed.Store(true)
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestLife is the whole life of a device: an install from A into B that is cut, and goes on; B boots and is marked
// good; an install from B into A that does not come up; the loader falls back to B, and A is marked bad. Every state
// that a power cut may leave, at every step, is booted.
func TestLife(t *testing.T) {
	want := scale("UPDATER_PROOF_SEEDS", 200)
	for _, l := range loaders() {
		t.Run(l.name, func(t *testing.T) {
			start := time.Now()
			var states, early atomic.Int64
			seeds(t, want, func(seed uint64) error {
				d := newDevice(t, l, seed)
				n, err := d.life(t)
				states.Add(int64(n))
				early.Add(d.early)
				return err
			})
			if early.Load() == 0 {
				t.Error("no install was read back while it was written")
			}
			if !t.Failed() && states.Load() < 50_000 && want >= 200 {
				t.Errorf("%d states; want at least 50000", states.Load())
			}
			count(t, "crash states, "+l.name, states.Load(), start)
		})
	}
}

func (d *device) life(t *testing.T) (states int, err error) {
	seed := d.o.Seed
	tally := func() error {
		n, err := d.crashes(crashdisk.Plan{})
		states += n
		return err
	}
	boot := func(want string) error {
		content := d.disk.Medium()
		if got := d.loader.start(content); got != want {
			return fmt.Errorf("the device boots %q; want %s", got, want)
		}
		d.booted = want
		d.power(content)
		return nil
	}
	mark := func(do func() error, slot string, img *image) error {
		if err := do(); err != nil {
			return err
		}
		d.disk.Mark(promise(slot, img))
		if err := tally(); err != nil {
			return err
		}
		d.power(d.disk.Medium())
		return nil
	}
	if err := mark(func() error { return d.good(t) }, "A", d.images[1]); err != nil {
		return states, err
	}
	// The power fails somewhere in the install of image 2.
	d.disk.Inject(crashdisk.Fault{N: 3 + int(seed*7)%20, Kind: crashdisk.EIO, Sticky: true})
	if _, err := d.install(t.Context(), d.images[2]); err == nil {
		return states, fmt.Errorf("an install with a dead drive succeeded")
	}
	if err := tally(); err != nil {
		return states, err
	}
	d.power(d.disk.Cut(seed))
	if err := boot("A"); err != nil {
		return states, err
	}
	if err := mark(func() error { return d.good(t) }, "A", d.images[1]); err != nil {
		return states, err
	}
	if err := mark(func() error { _, err := d.install(t.Context(), d.images[2]); return err }, "B", d.images[2]); err != nil {
		return states, err
	}
	if err := boot("B"); err != nil {
		return states, err
	}
	if err := mark(func() error { return d.good(t) }, "B", d.images[2]); err != nil {
		return states, err
	}
	if err := mark(func() error { _, err := d.install(t.Context(), d.images[3]); return err }, "A", d.images[3]); err != nil {
		return states, err
	}
	if err := boot("A"); err != nil { // and hangs
		return states, err
	}
	if err := boot("B"); err != nil {
		return states, err
	}
	bad := func() error {
		b, err := d.backend()
		if err != nil {
			return err
		}
		return b.MarkBad(t.Context(), "A")
	}
	return states, mark(bad, "B", d.images[2])
}

// good marks the booted slot good.
func (d *device) good(t testing.TB) error {
	b, err := d.backend()
	if err != nil {
		return err
	}
	if err := b.MarkGood(t.Context(), d.booted); err != nil || d.roles == 1 {
		return err
	}
	m, err := d.memory()
	if err != nil {
		return err
	}
	return m.good(d.booted, roleNames[:d.roles])
}
