package verify

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// SignatureError says why a document is not trusted. Every refusal of [Policy.Verify] is one.
type SignatureError struct {
	Reason string    // what was refused, a sentence without its end; never empty
	KeyID  string    // hex, the key that made the signature; empty when no single signature is meant
	UserID string    // user ID of that key, when it is in the keyring
	Time   time.Time // when the signature says it was made; zero when no single signature is meant
	Advice string    // what a person can do next; empty: Hint gives a general answer
	Err    error     // cause, may be nil
}

func (e *SignatureError) Error() string {
	var b strings.Builder
	if e.KeyID != "" {
		fmt.Fprintf(&b, "signature by key %s", e.KeyID)
		if e.UserID != "" {
			fmt.Fprintf(&b, " (%s)", e.UserID)
		}
		if !e.Time.IsZero() {
			fmt.Fprintf(&b, " of %s", stamp(e.Time))
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *SignatureError) Unwrap() error { return e.Err }

// Hint says what to do next, for a person, as one line.
func (e *SignatureError) Hint() string {
	if e.Advice != "" {
		return e.Advice
	}
	return "get the file and its signature again from where they are published; if that does not help, tell whoever signs them"
}

// stamp formats a time for a person.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// printable replaces what could act on a terminal. User IDs are free text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
