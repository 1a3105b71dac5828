package terminal

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Lines to the journal have priorities, and nothing else is changed.
func TestJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", "1:1")
	if Journal(w) != io.Writer(w) {
		t.Error("another stream has priorities")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	j := Journal(w)
	const text = "updater: checking\nupdater: warning: late\nupdater: error: a\nupdater: hint: b\n"
	for _, part := range []string{text[:10], text[10:41], text[41:]} {
		if n, err := io.WriteString(j, part); err != nil || n != len(part) {
			t.Errorf("writing %q: %d, %v", part, n, err)
		}
	}
	w.Close()
	got, err := io.ReadAll(r)
	if want := "<6>updater: checking\n<4>updater: warning: late\n<3>updater: error: a\n<3>updater: hint: b\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
