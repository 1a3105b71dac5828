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

// beatMissing is the silence after which the worker is considered hung.
const beatMissing = 60 * time.Second

// logPatience is how long a message may take before a restart: a console may be stopped.
const logPatience = 5 * time.Second

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
	now      func() time.Time
}

// Run starts the worker, arms the hardware watchdog and feeds it while the worker sends heartbeats ([Work.Beat]). The worker is the
// first process that the kernel kills when memory is short. If the worker ends for any reason, or sends no heartbeat for 60 seconds,
// Run logs that, flushes the file systems and ends the machine as OnDone asks, unless the watchdog does so first. No step before that
// waits for a device without a limit. Run returns only if ending the machine fails.
func (s Supervisor) Run() error {
	if s.end == nil {
		s.end, s.watchdog, s.missing, s.pause, s.now = end, KeepWatchdog, beatMissing, failedPause, time.Now
	}
	began := s.now()
	var last atomic.Int64 // nanoseconds from began to the last beat, on the monotonic clock
	alive := func() bool { return s.now().Sub(began)-time.Duration(last.Load()) < s.missing }
	go s.watchdog(alive, s.Log)

	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM) // Ctrl-Alt-Del, and consoles that hang up
	pid, r, err := s.start()
	if err != nil {
		return errors.Join(err, s.end(s.OnDone))
	}
	go func() {
		for buf := make([]byte, 64); ; {
			if n, err := r.Read(buf); n == 0 || err != nil {
				return // the worker ended; wait reports it
			}
			last.Store(int64(s.now().Sub(began)))
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
	why := <-over
	within(logPatience, func() {
		s.Log("error: the updater %s", why)
		s.Log("a slot being written stays unbootable; %s in %d s", ending(s.OnDone), int(s.pause.Seconds()))
	})
	time.Sleep(s.pause)
	return s.end(s.OnDone)
}

// start starts the worker. beats is the end of the pipe that receives its heartbeats.
func (s Supervisor) start() (pid int, beats *os.File, err error) {
	beats, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer w.Close()
	pid, err = syscall.ForkExec(s.Program, s.Args, &syscall.ProcAttr{
		// The kernel makes variables of words on its command line, such as GODEBUG or SSL_CERT_FILE.
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}, Files: []uintptr{0, 1, 2, w.Fd()},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", s.Program, err)
	}
	// 1000 selects a process before all others (proc_pid_oom_score_adj(5)). It fails if the worker has ended, which wait reports.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0)
	return pid, beats, nil
}

// within runs do and waits for it for at most patience. It reports whether do returned.
func within(patience time.Duration, do func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
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
