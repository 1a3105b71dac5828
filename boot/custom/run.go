package custom

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

const (
	patience  = 60 * time.Second
	maxOutput = 64 << 10
)

// run starts a program with a bare environment and no input, waits, and returns what it printed. It is the
// one place of the device's binary that starts programs; a test holds that.
func run(ctx context.Context, argv []string) ([]byte, error) {
	ctx, stop := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took longer than %s", patience))
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
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}, Files: []*os.File{null, w, os.Stderr},
		Sys: &syscall.SysProcAttr{Setpgid: true}, // so that what it starts can be ended with it
	})
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	end := context.AfterFunc(ctx, func() {
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
		_ = r.SetReadDeadline(time.Now()) // whoever has left the group may hold the pipe open
	})
	defer end()
	out, rerr := io.ReadAll(io.LimitReader(r, maxOutput+1))
	if len(out) > maxOutput {
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
	state, err := p.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("running %s: %w", argv[0], context.Cause(ctx))
	case err != nil || rerr != nil:
		return nil, fmt.Errorf("running %s: %w", argv[0], errors.Join(err, rerr))
	case len(out) > maxOutput:
		return nil, fmt.Errorf("running %s: it printed more than %d bytes", argv[0], maxOutput)
	case !state.Success():
		return nil, fmt.Errorf("running %s: %s: %.200s", argv[0], state, bytes.TrimSpace(out))
	}
	return out, nil
}
