package initramfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updater/internal/steppedclock"
)

// TestMain is also the worker that the supervisor starts: its last argument selects how it fails.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[0] == "worker" && os.Args[1] == "end" {
		endHere(os.Args[2])
	}
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[0], "worker") {
		work := new(Work)
		if os.Args[1] == "stuck" {
			work.Begin("writing", time.Second)
		}
		if os.Args[1] != "silent" {
			go work.Beat(func(string, ...any) {})
		}
		switch os.Args[1] {
		case "stuck": // as a write to a drive that does not answer
			var p [2]int
			_ = unix.Pipe(p[:])
			go func() { _, _ = unix.Read(p[0], make([]byte, 1)) }()
		case "expendable":
			for range 500 {
				if text, _ := os.ReadFile("/proc/self/oom_score_adj"); strings.TrimSpace(string(text)) == "1000" {
					os.Exit(5)
				}
				time.Sleep(10 * time.Millisecond)
			}
		case "variables":
			if len(os.Environ()) > 2 {
				os.Exit(9)
			}
			os.Exit(6)
		case "panics":
			panic("a bug")
		case "exits":
			os.Exit(7)
		case "dies":
			p, _ := os.FindProcess(os.Getpid())
			_ = p.Kill()
		}
		time.Sleep(8 * time.Second)
		os.Exit(0)
	}
	if os.Getuid() == 0 && os.Getenv(inNamespace) == "" {
		if code := again(); code >= 0 {
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

// However the worker ends, the reason is logged and the machine ends as asked; the watchdog is fed only while the worker lives.
func TestSupervisor(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"panics", "ended unexpectedly: exit status 2"},
		{"exits", "ended unexpectedly: exit status 7"},
		{"variables", "ended unexpectedly: exit status 6"}, // two, whatever the kernel's command line makes of its words
		{"dies", "ended unexpectedly: signal killed"},
		{"expendable", "ended unexpectedly: exit status 5"},
		// From here on an earlier Run may reap the worker of a later one.
		{"silent", "sent no heartbeat for 2s"},
		{"stuck", "sent no heartbeat for 2s"},
	} {
		t.Run(c.how, func(t *testing.T) {
			var mu sync.Mutex
			var said []string
			ended, wasAlive, stillAlive := "", false, true
			s := Supervisor{
				Program: "/proc/self/exe", Args: []string{"worker", c.how}, OnDone: "poweroff",
				Log: func(format string, a ...any) {
					mu.Lock()
					said = append(said, fmt.Sprintf(format, a...))
					mu.Unlock()
				},
				missing: 2 * time.Second, pause: time.Millisecond, now: time.Now,
			}
			done := make(chan struct{})
			s.watchdog = func(alive func() bool, _ func(string, ...any)) {
				wasAlive = alive()
				for range 100 {
					if time.Sleep(100 * time.Millisecond); !alive() {
						break
					}
				}
				stillAlive = alive()
				close(done)
			}
			s.end = func(how string) error { ended = how; return errors.New("the machine is still there") }
			if err := s.Run(); err == nil {
				t.Error("Run returned nil, though the machine is still there")
			}
			<-done
			mu.Lock()
			defer mu.Unlock()
			if ended != "poweroff" || len(said) < 2 || !strings.Contains(said[0], c.want) || !strings.Contains(said[1], "powering off in") {
				t.Errorf("ended by %q after %q; want %q", ended, said, c.want)
			}
			if !wasAlive || stillAlive {
				t.Errorf("the watchdog was fed: first %v, after the end %v; want true, false", wasAlive, stillAlive)
			}
		})
	}
}

// TestSupervisorClock: a worker that beats is left alone for longer than it may be silent, and a silent one is noticed, whichever way
// the clock is set.
func TestSupervisorClock(t *testing.T) {
	for _, c := range []struct {
		how  string
		step time.Duration
		ends bool
	}{{"works", time.Hour, false}, {"silent", -time.Hour, true}} {
		t.Run(fmt.Sprint(c.how, c.step), func(t *testing.T) {
			ended := make(chan string, 1)
			clock := steppedclock.New()
			s := Supervisor{
				Program: "/proc/self/exe", Args: []string{"worker", c.how}, Log: t.Logf, missing: 3 * time.Second, now: clock.Now,
				watchdog: func(func() bool, func(string, ...any)) {},
				end:      func(how string) error { ended <- how; return errors.New("still there") },
			}
			over := make(chan struct{})
			go func() { defer close(over); _ = s.Run() }()
			time.Sleep(time.Second)
			clock.Step(c.step)
			select {
			case <-ended:
				if <-over; !c.ends {
					t.Error("a worker that beats was ended")
				}
			case <-time.After(5 * time.Second):
				if c.ends {
					t.Error("a silent worker was not noticed")
				}
			}
		})
	}
}
