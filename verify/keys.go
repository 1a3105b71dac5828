package verify

import (
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Key describes one certificate of a keyring, and whether it can sign now.
type Key struct {
	Fingerprint string    // of the primary key, upper-case hex
	UserID      string    // as in [Signer]; may be empty
	Expires     time.Time // when the last of its keys that can sign expires; zero if it never does, or none can
	Unusable    string    // why none of its keys can sign at the policy's time; "" if one can
}

// Keys judges every certificate of the keyring as [Policy.Verify] would judge a signature that is made at the trusted
// time, sorted by fingerprint. It is for display; only Verify judges documents.
func (p Policy) Keys() ([]Key, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	var keys []Key
	for _, name := range p.Keyring.Fingerprints() {
		c := p.Keyring.certificates[name]
		e, err := c.entity()
		if err != nil {
			return nil, err
		}
		k := Key{Fingerprint: name}
		usable := false
		for _, id := range c.keyIDs {
			key, subkey := findKey(e, id)
			if key == nil {
				continue
			}
			j := judgement{policy: p, cert: c, entity: e, key: key, subkey: subkey, sig: &packet.Signature{CreationTime: p.Time}}
			if p.LowerBound && key.CreationTime.After(p.Time) {
				j.sig.CreationTime = key.CreationTime // a signature of it is made later
			}
			j.config = p.config(j.sig)
			k.UserID = j.userID()
			why, end := j.canSign()
			switch {
			case why == "" && (!usable || end.IsZero() || !k.Expires.IsZero() && end.After(k.Expires)):
				usable, k.Expires, k.Unusable = true, end, ""
			case !usable && (k.Unusable == "" || subkey != nil):
				k.Unusable = why
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// canSign returns the reason why the key cannot sign at the time of j.sig, else the time when it expires.
func (j *judgement) canSign() (why string, end time.Time) {
	for _, step := range []func() (reason, advice string, err error){j.revocation, j.strength, j.binding} {
		if why, _, _ = step(); why != "" {
			return why, end
		}
	}
	return j.outlived(j.sig.CreationTime), earliest(ends(j.entity.PrimaryKey, j.primary, j.direct), ends(j.key, j.bound))
}

// ends returns the expiry times of a key by each of the signatures; nil ones are skipped.
func ends(key *packet.PublicKey, selves ...*packet.Signature) []time.Time {
	var list []time.Time
	for _, s := range selves {
		if s != nil && s.KeyLifetimeSecs != nil && *s.KeyLifetimeSecs > 0 {
			list = append(list, key.CreationTime.Add(time.Duration(*s.KeyLifetimeSecs)*time.Second).UTC())
		}
	}
	return list
}

// earliest returns the first of the times, zero if there are none.
func earliest(lists ...[]time.Time) time.Time {
	all := slices.Concat(lists...)
	if len(all) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(all, time.Time.Compare)
}
