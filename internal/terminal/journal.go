package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Journal returns f, or, when f leads to the journal (JOURNAL_STREAM of systemd.exec(5)), a writer that begins every line with its priority
// (sd-daemon(3)): errors and hints are errors, warnings are warnings, all else is information. Safe for concurrent use.
func Journal(f *os.File) io.Writer {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || os.Getenv("JOURNAL_STREAM") != fmt.Sprintf("%d:%d", st.Dev, st.Ino) {
		return f
	}
	return &journal{to: f}
}

type journal struct {
	mu     sync.Mutex
	to     io.Writer
	inLine bool
}

// Write implements io.Writer.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []byte
	for line := range bytes.Lines(p) {
		if !j.inLine {
			out = append(out, priority(line)...)
		}
		out = append(out, line...)
		j.inLine = line[len(line)-1] != '\n'
	}
	if _, err := j.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func priority(line []byte) string {
	switch {
	case bytes.HasPrefix(line, []byte("updater: error:")), bytes.HasPrefix(line, []byte("updater: hint:")):
		return "<3>"
	case bytes.HasPrefix(line, []byte("updater: warning:")):
		return "<4>"
	}
	return "<6>"
}
