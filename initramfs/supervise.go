package initramfs

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Interval of heartbeats, and the silence after which the worker is considered hung.
const (
	beatEvery   = 2 * time.Second
	beatMissing = 60 * time.Second
)

// beatFD is the worker's end of the heartbeat pipe.
const beatFD = 3

// Supervisor restarts the machine if the worker exits, panics or hangs. As PID 1 it also reaps orphans.
type Supervisor struct {
	Program string   // path of the worker
	Args    []string // its arguments, the name first
	OnDone  string   // reboot, poweroff or halt, after the worker failed
	Log     func(format string, a ...any)

	// Replaced in tests.
	end      func(how string) error
	watchdog func(alive func() bool, log func(format string, a ...any))
	missing  time.Duration
	pause    time.Duration
}

// Run starts the worker, arms the hardware watchdog and feeds it while the worker sends heartbeats ([Beat]). If the worker ends
// for any reason, or sends no heartbeat for 60 seconds, Run logs that, flushes the file systems and ends the machine as OnDone
// asks, unless the watchdog does so first. Run returns only if that fails.
func (s Supervisor) Run() error {
	if s.end == nil {
		s.end, s.watchdog, s.missing, s.pause = end, KeepWatchdog, beatMissing, failedPause
	}
	var last atomic.Int64 // of the last beat
	last.Store(time.Now().UnixNano())
	alive := func() bool { return time.Since(time.Unix(0, last.Load())) < s.missing }
	go s.watchdog(alive, s.Log)

	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM) // Ctrl-Alt-Del, and consoles that hang up
	r, w, err := os.Pipe()
	if err != nil {
		return errors.Join(err, s.end(s.OnDone))
	}
	pid, err := syscall.ForkExec(s.Program, s.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, w.Fd()},
	})
	w.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("starting %s: %w", s.Program, err), s.end(s.OnDone))
	}
	go func() {
		for buf := make([]byte, 64); ; {
			if n, err := r.Read(buf); n == 0 || err != nil {
				return // the worker ended; wait reports it
			}
			last.Store(time.Now().UnixNano())
		}
	}()
	over := make(chan string, 2)
	go func() { over <- "ended unexpectedly: " + wait(pid) }()
	go func() {
		for alive() {
			time.Sleep(s.missing / 8)
		}
		over <- fmt.Sprintf("sent no heartbeat for %s", s.missing)
	}()
	s.Log("error: the updater %s", <-over)
	s.Log("a slot being written stays unbootable; %s in %d s", ending(s.OnDone), int(s.pause.Seconds()))
	unix.Sync()
	time.Sleep(s.pause)
	return s.end(s.OnDone)
}

// ending describes OnDone for messages.
func ending(how string) string {
	if how == "poweroff" {
		return "powering off"
	}
	if how == "halt" {
		return "halting"
	}
	return "restarting"
}

// wait waits for a process and reaps all others meanwhile.
func wait(pid int) string {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err.Error()
		case got == pid && ws.Signaled():
			return "signal " + ws.Signal().String()
		case got == pid && ws.Exited():
			return fmt.Sprintf("exit status %d", ws.ExitStatus())
		}
	}
}

// Beat sends heartbeats to the [Supervisor] until the pipe is closed. The worker runs it in a goroutine.
func Beat() {
	unix.CloseOnExec(beatFD)
	for {
		if _, err := unix.Write(beatFD, []byte{0}); err != nil && !errors.Is(err, unix.EINTR) {
			return // no supervisor
		}
		time.Sleep(beatEvery)
	}
}
