package initramfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain is also the worker that the supervisor starts: its last argument says how it goes wrong.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && strings.HasPrefix(os.Args[0], "worker") {
		if os.Args[1] != "silent" {
			go Beat()
		}
		switch os.Args[1] {
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
	os.Exit(m.Run())
}

// Whatever becomes of the worker, a person reads it and the machine ends as asked; the hardware is fed only while the worker lives.
func TestSupervisor(t *testing.T) {
	for _, c := range []struct{ how, want string }{
		{"panics", "ended unexpectedly: exit status 2"},
		{"exits", "ended unexpectedly: exit status 7"},
		{"dies", "ended unexpectedly: signal killed"},
		{"silent", "sent no heartbeat for 1s"},
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
				missing: time.Second, pause: time.Millisecond,
			}
			done := make(chan struct{})
			s.watchdog = func(alive func() bool, _ func(string, ...any)) {
				wasAlive = alive()
				time.Sleep(2500 * time.Millisecond)
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

// A worker that lives and says so is left alone for longer than it may be silent.
func TestSupervisorWaits(t *testing.T) {
	ended := make(chan string, 1)
	s := Supervisor{
		Program: "/proc/self/exe", Args: []string{"worker", "works"}, Log: t.Logf, missing: 3 * time.Second,
		watchdog: func(func() bool, func(string, ...any)) {},
		end:      func(how string) error { ended <- how; return errors.New("still there") },
	}
	go s.Run()
	select {
	case how := <-ended:
		t.Errorf("ended by %q", how)
	case <-time.After(5 * time.Second):
	}
}
