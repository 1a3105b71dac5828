package verify

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// SignatureError is the reason why a document is not trusted. All refusals of [Policy.Verify] are of this type.
type SignatureError struct {
	Reason string    // the finding, a sentence without a period; never empty
	KeyID  string    // hex, the key that made the signature; "" if the error is not about one signature
	UserID string    // user ID of that key, if it is in the keyring
	Time   time.Time // creation time of the signature; zero if the error is not about one signature
	Advice string    // next action for the operator; "" selects a general hint
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

// Hint returns the next action for the operator, one line.
func (e *SignatureError) Hint() string {
	if e.Advice != "" {
		return e.Advice
	}
	return "download the file and its signature again; if that does not help, report it to their publisher"
}

// stamp formats a time for an error.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// printable replaces control characters: user IDs are untrusted text that may reach a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
