package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode"
)

// hostile has one of each kind: C0, DEL, C1, bidirectional controls and isolates, line and paragraph separators, a tag, invalid UTF-8.
const hostile = "a\x1b[2J\r\nupdater: done\x07\x7f\u009b2J\u202egnp\u2066\u2028\u2029\U000e0001\xff\tz"

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                "plain",
		"Grüße, 北京":            "Grüße, 北京",
		"\x1b[2J":              "?[2J",
		"one\ntwo\n":           "one; two",
		"a\r\tb":               "a??b",
		"\u009b2J\u202e\u2028": "?2J??",
	} {
		if got := Line(text); got != want {
			t.Errorf("Line(%q) = %q; want %q", text, got, want)
		}
	}
	if got := Line(hostile); strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("Line leaves %q", got)
	}
}

func TestFprintf(t *testing.T) {
	var b bytes.Buffer
	n, err := Fprintf(&b, "%s %5.2s|%v %d %q %*d\t%v\n", "a\x1bb", "xy\nz", errors.Join(io.EOF, errors.New("b\nc")), 7, "q\x1b", 4, 1, 2*time.Second)
	want := "a?b    xy|EOF; b; c 7 \"q\\x1b\"    1\t2s\n"
	if b.String() != want || n != len(want) || err != nil {
		t.Errorf("%q, %d, %v; want %q", b.String(), n, err, want)
	}
}

// TestWriter: however the text is cut into writes, the output is the same.
func TestWriter(t *testing.T) {
	text, want := "é\x1b[2J\tx\u009b\u202e\n\xff北", "é?[2J\tx??\n\ufffd北"
	for step := 1; step <= len(text); step++ {
		var b bytes.Buffer
		w := NewWriter(&b)
		for at := 0; at < len(text); at += step {
			piece := text[at:min(at+step, len(text))]
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatalf("Write(%q) = %d, %v", piece, n, err)
			}
		}
		if b.String() != want {
			t.Errorf("in steps of %d: %q; want %q", step, b.String(), want)
		}
	}
	if _, err := NewWriter(iotest.TruncateWriter(io.Discard, 0)).Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := NewWriter(failing{}).Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v; want the error of the writer behind", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestJSON: the escaped text has the same meaning, and nothing that is not printable.
func TestJSON(t *testing.T) {
	encoded, err := json.Marshal(map[string]string{"k\u0085": hostile})
	if err != nil {
		t.Fatal(err)
	}
	escaped := JSON(append(encoded, '\n'))
	var want, got map[string]string
	if err := errors.Join(json.Unmarshal(encoded, &want), json.Unmarshal(escaped, &got)); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if strings.ContainsFunc(strings.TrimSuffix(string(escaped), "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("JSON leaves %q", escaped)
	}
}
