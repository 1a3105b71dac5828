package provision

import (
	"bytes"
	"crypto"
	"fmt"
	"time"
)

// latchFile is where the latch is in an identity partition.
const latchFile = "latch.json"

// Latch says on the device that it was provisioned. The station signs it.
type Latch struct {
	Kind    string    `json:"kind"` // latch
	Serial  string    `json:"serial"`
	Unit    string    `json:"unit"`
	Station string    `json:"station"`
	Plan    string    `json:"plan"` // sha256 of the plan
	Time    time.Time `json:"time"`
}

// Token allows one serial to be provisioned again until it expires. A factory key signs it.
type Token struct {
	Kind    string    `json:"kind"` // token
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// LatchedError refuses a device that was provisioned before.
type LatchedError struct {
	Target string
	Serial string // "" when the latch does not say
	Why    string // the token does not help
}

func (e *LatchedError) Error() string {
	serial := e.Serial
	if serial == "" {
		serial = "unknown serial"
	}
	return fmt.Sprintf("%s was provisioned before (%s): %s", e.Target, serial, e.Why)
}

// latch decides whether a device may be provisioned. Whatever stands in the place of the latch counts as one: a
// damaged latch does not open the device. The exception is a run of this very station that ended between latch and
// record, which interrupted tells: it has to be completed.
func (p *Plan) latch(target string, before held, token []byte, factory, station crypto.PublicKey, now time.Time, interrupted func(digest string) bool) error {
	if p.Latch == nil || len(before.Latch) == 0 {
		return nil
	}
	refused := &LatchedError{Target: target, Serial: before.Serial}
	var l Latch
	if err := Open(before.Latch, "latch", &l, station); err == nil {
		refused.Serial = l.Serial
		if interrupted(digest(before.Latch)) {
			return nil
		}
	}
	var t Token
	switch err := Open(bytes.TrimSpace(token), "token", &t, factory); {
	case len(token) == 0:
		refused.Why = "a token of the factory key is needed to do it again"
	case err != nil:
		refused.Why = "the token does not allow it: " + err.Error()
	case t.Serial != refused.Serial || t.Serial == "":
		refused.Why = fmt.Sprintf("the token is for serial %s", t.Serial)
	case !now.Before(t.Expires):
		refused.Why = fmt.Sprintf("the token expired at %s", t.Expires.UTC().Format(time.RFC3339))
	default:
		return nil
	}
	return refused
}
