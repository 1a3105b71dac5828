package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// cookie holds the token of a session.
const cookie = "updater-recovery"

// Codes that may be tried: a few at once, then one in so long. A year of guesses covers one of 35,000 codes.
const (
	tries    = 5
	tryEvery = time.Second
)

// minCode is the shortest code that a device may bring along, in characters.
const minCode = 8

// newCode makes a code of 8 characters, which are easy to read from a screen, and 40 bits.
func newCode() string {
	text := rand.Text() // RFC 4648 base32: no 0, 1, 8 and 9
	return text[:4] + "-" + text[4:8]
}

// checkCode refuses a code that is easy to guess by its length.
func checkCode(code string) error {
	if n := len(normal(code)); n < minCode {
		return fmt.Errorf("the code has %d letters and digits, expected %d or more", n, minCode)
	}
	return nil
}

// normal drops what people add to or leave out of a code: case, spaces, dashes.
func normal(code string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToUpper(code))
}

// sessions are the clients that have entered the code. They share one token: every client that knows the code has the same rights.
type sessions struct {
	code  [sha256.Size]byte
	token string
	now   func() time.Time

	mu   sync.Mutex
	full time.Time // when all tries are there again
}

func newSessions(code string) sessions {
	return sessions{code: sha256.Sum256([]byte(normal(code))), token: rand.Text(), now: time.Now}
}

// enter compares a code and returns the token of a session, or how long to wait before the next one may be tried.
func (s *sessions) enter(code string) (token string, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.full.Before(now) {
		s.full = now
	}
	next := s.full.Add(tryEvery)
	if wait := next.Sub(now) - tries*tryEvery; wait > 0 {
		return "", wait
	}
	s.full = next
	got := sha256.Sum256([]byte(normal(code)))
	if subtle.ConstantTimeCompare(got[:], s.code[:]) != 1 {
		return "", 0
	}
	return s.token, 0
}

// knows reports whether a request belongs to a session.
func (s *sessions) knows(r *http.Request) bool {
	c, err := r.Cookie(cookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(s.token)) == 1
}
