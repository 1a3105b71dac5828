package fleet_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is a device whose releases work or not, driven at random, and the observations of it.
type world struct {
	*line
	random   *rand.Rand
	running  string           // version; "" before the first update
	broken   map[string]bool  // versions that do not come up
	starts   map[string]int   // of broken versions, since the attempt was raised
	attempts map[string]int64 // of versions; 0 is 1
	marked   map[string]bool  // versions that were marked good
	left     map[string]bool  // versions that a rollback has left
	log      []string
}

// TestEveryLife drives a device by random sequences of publishing, checking, updating, rolling back, killing, restarting and reporting. A
// release that does not come up is started as often as it has tries, which is once here, for each attempt; no report is false; and it all
// ends in rest.
func TestEveryLife(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := &world{
				line: newLine(t), random: rand.New(rand.NewPCG(seed, 22)),
				broken: map[string]bool{}, starts: map[string]int{}, attempts: map[string]int64{}, marked: map[string]bool{}, left: map[string]bool{},
			}
			defer func() {
				if t.Failed() {
					t.Logf("steps: %s", strings.Join(w.log, ", "))
				}
			}()
			for n := range 25 {
				w.step(n)
			}
			w.rest()
			w.checkReports()
		})
	}
}

func (w *world) step(n int) {
	w.Helper()
	do := func(name string, f func()) {
		w.log = append(w.log, name)
		f()
	}
	switch w.random.IntN(9) {
	case 0, 1:
		version := fmt.Sprintf("v%d", n)
		w.broken[version] = w.random.IntN(2) == 0
		do(fmt.Sprintf("publish %s, broken %t", version, w.broken[version]), func() { w.publish(version, n+1) })
	case 2:
		if version := w.aBroken(); version != "" {
			do("raise the attempt of "+version, func() { w.raise(version) })
		}
	case 3:
		do("check", func() { w.Run("check", "--config", "config.toml") })
	case 4:
		do("report", func() { w.Run("report", "--now", "--config", "config.toml") })
	case 5:
		do("kill an update", func() { w.killed("update") })
	case 6:
		do("update", func() { w.update() })
	case 7:
		do("restart", w.start)
	case 8:
		do("kill a rollback", w.rollback)
	}
}

// aBroken is a broken version that was started, "" without one.
func (w *world) aBroken() string {
	for _, version := range slices.Sorted(maps.Keys(w.starts)) {
		if w.starts[version] > 0 {
			return version
		}
	}
	return ""
}

// raise lets devices try a version again.
func (w *world) raise(version string) {
	w.Helper()
	w.Run("check", "--config", "config.toml") // a fallback is found before
	w.attempts[version]++
	w.publish(version, 0, "--attempt", fmt.Sprint(w.attempts[version]+1))
	w.starts[version] = 0
}

func (w *world) update() (code int) {
	w.Helper()
	code, _, errs := w.Run("update", "--config", "config.toml")
	if code != 0 && code != 3 && code != 16 {
		w.Errorf("update: exit %d: %s", code, errs)
	}
	return code
}

// rollback goes back to the other slot, and is ended at any moment. The running version is left if the other slot is the next choice.
func (w *world) rollback() {
	w.Helper()
	before := w.Next()
	w.killed("rollback")
	if w.Next() != before {
		w.left[w.running] = true
	}
	w.Run("report", "--now", "--config", "config.toml")
}

// killed ends a command at any moment, by SIGINT or SIGKILL.
func (w *world) killed(verb string) {
	w.Helper()
	cmd := w.Command(verb, "--config", "config.toml")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	time.Sleep(time.Duration(w.random.IntN(400)) * time.Millisecond)
	_ = cmd.Process.Signal([]os.Signal{os.Interrupt, os.Kill}[w.random.IntN(2)])
	_ = cmd.Wait()
}

// start restarts until a version comes up, which is marked good.
func (w *world) start() {
	w.Helper()
	for range 4 {
		slot := w.restart()
		version := w.version(slot)
		if !w.broken[version] {
			w.running = version
			w.run(0, "is good", "mark", "good")
			w.marked[version] = true
			return
		}
		if w.starts[version]++; w.starts[version] > 1 {
			w.Errorf("%s, which does not come up, was started %d times", version, w.starts[version])
		}
	}
	w.Fatal("no slot comes up")
}

// version is the version that a slot holds.
func (w *world) version(slot string) string {
	w.Helper()
	_, out, _ := w.Run("status", "--config", "config.toml")
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "slot "+slot); ok {
			if _, after, ok := strings.Cut(rest, "rootfs v"); ok {
				return "v" + strings.Fields(after)[0]
			}
		}
	}
	return ""
}

// rest goes on until there is nothing to do.
func (w *world) rest() {
	w.Helper()
	w.log = append(w.log, "rest")
	for range 2 * (len(w.broken) + 1) {
		if w.update() == 3 {
			before := w.running
			w.start()
			if w.running == before && w.update() == 3 {
				return
			}
			continue
		}
		w.start()
	}
	w.Errorf("the device does not come to rest")
}

func (w *world) checkReports() {
	w.Helper()
	w.Run("report", "--now", "--config", "config.toml")
	if len(slices.Compact(slices.Sorted(slices.Values(w.keys)))) != len(w.keys) {
		w.Errorf("a report was sent twice: %q", w.keys)
	}
	for _, r := range w.reported() {
		version, outcome, _ := strings.Cut(r, " ")
		switch {
		case outcome == "good" && !w.marked[version], outcome == "fell-back" && !w.broken[version] && !w.left[version], outcome == "failed":
			w.Errorf("the report %q is false", r)
		}
	}
}
