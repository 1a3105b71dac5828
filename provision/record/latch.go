package record

import (
	"bytes"
	"cmp"
	"crypto"
	"fmt"
	"time"
)

// Latch marks a device as provisioned. The station seals it.
type Latch struct {
	Kind    string    `json:"kind"` // latch
	Serial  string    `json:"serial"`
	Unit    string    `json:"unit"`
	Station string    `json:"station"`
	Plan    string    `json:"plan"` // sha256 of the plan
	Time    time.Time `json:"time"`
}

// Token allows one serial to be provisioned again until it expires. A factory key seals it.
type Token struct {
	Kind    string    `json:"kind"` // token
	Serial  string    `json:"serial"`
	Expires time.Time `json:"expires"`
}

// LatchedError reports a device that was provisioned before.
type LatchedError struct {
	Target string
	Serial string // "" if it is unknown
	Why    string // the token does not open it
}

func (e *LatchedError) Error() string {
	return fmt.Sprintf("%s was provisioned before (%s): %s", e.Target, cmp.Or(e.Serial, "unknown serial"), e.Why)
}

// Gate decides whether a device with a latch may be provisioned again.
type Gate struct {
	Station     crypto.PublicKey
	Factory     crypto.PublicKey
	Token       []byte // nil means none
	Now         time.Time
	Interrupted func(latch []byte) bool // the station wrote this latch to this unit and was interrupted, see [Spool.Interrupted]
	Device      bool                    // the target has the slots of a device, and this station did not begin to write them, see [Spool.Begun]
}

// Check decides on a target by the latch that it holds (nil means none) and the serial in its identity partition. Any content in place
// of the latch counts as one, also none at all: a latch that is damaged, empty or unreadable does not open the device. The slots of a device
// count as a latch. Only a run of this station that was interrupted may be completed without a token. Errors: [LatchedError].
func (g Gate) Check(target string, latch []byte, serial string) error {
	if latch == nil && !g.Device {
		return nil
	}
	var l Latch
	if err := Unseal(latch, "latch", &l, g.Station); latch != nil && err == nil {
		serial = l.Serial
		if g.Interrupted(latch) {
			return nil
		}
	}
	if why := g.refuses(serial); why != "" {
		return &LatchedError{Target: target, Serial: serial, Why: why}
	}
	return nil
}

// refuses is why the token does not open a device with this serial, "" if it does.
func (g Gate) refuses(serial string) string {
	switch {
	case g.Factory == nil:
		return "it has the slots of a device; [latch] in the plan and a token of its factory key are required, or an erased partition table"
	case len(g.Token) == 0:
		return "a token of the factory key is required to provision it again"
	}
	var t Token
	if err := Unseal(bytes.TrimSpace(g.Token), "token", &t, g.Factory); err != nil {
		return "checking the token: " + err.Error()
	}
	switch {
	case t.Serial != serial || t.Serial == "":
		return fmt.Sprintf("the token is for serial %s", t.Serial)
	case !g.Now.Before(t.Expires):
		return fmt.Sprintf("the token expired at %s", t.Expires.UTC().Format(time.RFC3339))
	}
	return ""
}
