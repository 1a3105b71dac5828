// Package program starts programs that an integrator has configured, by absolute path, without a shell and with an
// environment of their own. No step of an install needs one.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// DefaultLimit is how long a program without a limit of its own may take.
const DefaultLimit = 60 * time.Second

// maxOutput bounds the part of a program's output that is kept or passed on, in bytes.
const maxOutput = 64 << 10

// linger is how long processes that a program has left behind may go on printing.
const linger = time.Second

// Command is one run of a program.
type Command struct {
	Argv  []string      // the first is its absolute path
	Env   []string      // beside PATH and LC_ALL
	Limit time.Duration // 0 is DefaultLimit
	// Line, unless nil, gets every line that the program prints to either output, up to 64 KiB in all; the rest is
	// dropped. If it is nil, standard output is the result of Run and standard error is that of this process.
	Line func(line string)
}

// Run refuses a program that others than root and the user of this process may write, see docs/security.md. It starts the program with no input,
// waits for it, and returns its output. A program that takes longer than its limit, or than ctx, is killed with all processes that it has started
// and not put into another process group. An error names the program, and how it ended.
func Run(ctx context.Context, c Command) ([]byte, error) {
	if c.Limit == 0 {
		c.Limit = DefaultLimit
	}
	name := c.Argv[0]
	if err := Owned(name); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	ctx, stop := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("it took longer than %s", c.Limit))
	defer stop()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	errs := os.Stderr
	if c.Line != nil {
		errs = w
	}
	p, err := os.StartProcess(name, c.Argv, &os.ProcAttr{
		Dir: "/", Env: append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, c.Env...), Files: []*os.File{null, w, errs},
		Sys: &syscall.SysProcAttr{Setpgid: true}, // so that its child processes can be ended with it
	})
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	end := context.AfterFunc(ctx, func() {
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
		_ = r.SetReadDeadline(time.Now()) // a process that left the group may hold the pipe open
	})
	defer end()
	var out []byte
	var state *os.ProcessState
	if c.Line != nil {
		done := make(chan struct{})
		go func() { defer close(done); hand(r, c.Line) }()
		state, err = p.Wait()
		_ = r.SetReadDeadline(time.Now().Add(linger))
		<-done
	} else {
		var rerr error
		if out, rerr = io.ReadAll(io.LimitReader(r, maxOutput+1)); len(out) > maxOutput {
			_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
		}
		state, err = p.Wait()
		err = errors.Join(err, rerr)
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("running %s: %w", name, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("running %s: %w", name, err)
	case len(out) > maxOutput:
		return nil, fmt.Errorf("running %s: it printed more than %d bytes", name, maxOutput)
	case !state.Success():
		if said := bytes.TrimSpace(out); len(said) > 0 {
			return nil, fmt.Errorf("running %s: %s: %.200s", name, state, said)
		}
		return nil, fmt.Errorf("running %s: %s", name, state)
	}
	return out, nil
}

// hand passes lines on until the output ends, and drops the part above the limit.
func hand(r io.Reader, line func(string)) {
	buf, kept, room := make([]byte, 4096), []byte(nil), maxOutput
	flush := func(b []byte) {
		if b = bytes.TrimRight(b, "\r"); len(b) > 0 && room > 0 {
			room -= len(b)
			line(string(b))
		}
	}
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			head, tail, whole := bytes.Cut(rest, []byte{'\n'})
			if kept = append(kept, head...); whole || len(kept) > len(buf) {
				flush(kept)
				kept = kept[:0]
			}
			rest = tail
		}
		if err != nil {
			flush(kept)
			return
		}
	}
}
