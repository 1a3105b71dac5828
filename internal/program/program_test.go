package program_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/internal/program"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		cmd   program.Command
		lines []string
		out   string
		bad   string // of the error
	}{
		{name: "output", cmd: program.Command{Argv: sh("echo $A $LC_ALL; echo $HOME"), Env: []string{"A=1"}}, out: "1 C\n\n"},
		{name: "exit", cmd: program.Command{Argv: sh("echo why; exit 3")}, bad: "exit status 3: why"},
		{name: "signal", cmd: program.Command{Argv: sh("kill -9 $$")}, bad: "signal: killed"},
		{name: "missing", cmd: program.Command{Argv: []string{"/nosuch"}}, bad: "starting /nosuch: "},
		{name: "too much", cmd: program.Command{Argv: sh("yes")}, bad: "more than 65536 bytes"},
		{name: "slow", cmd: program.Command{Argv: sh("sleep 60"), Limit: 50 * time.Millisecond}, bad: "took longer than 50ms"},
		{name: "slow child", cmd: program.Command{Argv: sh("sleep 60 & wait"), Limit: 50 * time.Millisecond}, bad: "took longer than 50ms"},
		{name: "lines", cmd: program.Command{Argv: sh("echo a; echo b >&2; printf c")}, lines: []string{"a", "b", "c"}},
		{name: "lines and exit", cmd: program.Command{Argv: sh("echo a; exit 1")}, lines: []string{"a"}, bad: "exit status 1"},
		{name: "left behind", cmd: program.Command{Argv: sh("echo a; sleep 5 &")}, lines: []string{"a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			if c.lines != nil {
				c.cmd.Line = func(l string) { lines = append(lines, l) }
			}
			out, err := program.Run(t.Context(), c.cmd)
			if string(out) != c.out || (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
				t.Errorf("Run() = %q, %v; want %q, %q", out, err, c.out, c.bad)
			}
			if !slices.Equal(lines, c.lines) {
				t.Errorf("lines are %q; want %q", lines, c.lines)
			}
		})
	}
}

// A program that prints without end costs no memory and is not stopped for it.
func TestManyLines(t *testing.T) {
	total := 0
	_, err := program.Run(t.Context(), program.Command{Argv: sh("head -c 1000000 /dev/zero | tr '\\0' x; yes | head -n 100000"), Line: func(l string) { total += len(l) }})
	if err != nil || total == 0 || total > 80<<10 {
		t.Errorf("Run() = %v with %d bytes of lines", err, total)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := program.Run(ctx, program.Command{Argv: sh("sleep 60"), Line: func(string) {}}); !errors.Is(err, cause) {
		t.Errorf("Run() = %v; want %v", err, cause)
	}
}
