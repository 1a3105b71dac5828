package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"updater/initramfs"
	"updater/update"
	"updater/verify"
)

// Trust is [trust]: the requirements for a signed document. The defaults are the strictest that a plain, signed bmap passes;
// every key but allow_rsa2048 only tightens them.
type Trust struct {
	MinSigners        int      `toml:"min_signers"`         // distinct primary keys; 0 is 1
	MinRSABits        int      `toml:"min_rsa_bits"`        // 3072 or more; 0 is 3072
	AllowRSA2048      bool     `toml:"allow_rsa2048"`       // the one key that lowers a floor
	MinHashBits       int      `toml:"min_hash_bits"`       // 256, 384 or 512; 0 is 256
	RefuseExpiredKeys bool     `toml:"refuse_expired_keys"` // also for earlier signatures
	RequireMetadata   bool     `toml:"require_metadata"`    // product and rollback index must be signed
	Require           []string `toml:"require"`             // further fields of <Update> that must be there
	Key               []Key    `toml:"key"`                 // pinned keys; none: every key of the keyring

	RoleSigners map[string]int `toml:"role_signers"` // raises min_signers for a role

	KeyringNumber int64 `toml:"keyring_number"` // of the keyring document that the configured keyring equals; 0 means none
}

// Key is one [[trust.key]].
type Key struct {
	Fingerprint string   `toml:"fingerprint"` // of the primary key, in full
	Roles       []string `toml:"roles"`       // roles it may sign for; none: every role
	Documents   []string `toml:"documents"`   // types of document that it may sign; none: releases and bare block maps
}

func (t *Trust) check() error {
	var errs []error
	wrong := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	wrong(t.MinSigners < 0 || t.MinSigners > 16, "trust.min_signers is %d, expected 1 to 16", t.MinSigners)
	if t.MinRSABits != 0 && t.AllowRSA2048 {
		wrong(true, "trust.min_rsa_bits and trust.allow_rsa2048 contradict each other; set one of them")
	} else {
		wrong(t.MinRSABits != 0 && (t.MinRSABits < verify.DefaultMinRSABits || t.MinRSABits > 16384),
			"trust.min_rsa_bits is %d, expected %d to 16384; set allow_rsa2048 for weaker keys", t.MinRSABits, verify.DefaultMinRSABits)
	}
	wrong(!slices.Contains([]int{0, 256, 384, 512}, t.MinHashBits), "trust.min_hash_bits is %d, expected 256, 384 or 512", t.MinHashBits)
	wrong(t.KeyringNumber < 0, "trust.keyring_number is %d, expected 0 or more", t.KeyringNumber)
	for _, name := range t.Require {
		wrong(!slices.Contains(update.Fields(), name), "trust.require has %q; the fields are %s", name, strings.Join(update.Fields(), ", "))
	}
	for role, n := range t.RoleSigners {
		wrong(n < 1 || n > 16, "trust.role_signers.%s is %d, expected 1 to 16", role, n)
	}
	return errors.Join(append(errs, t.checkKeys())...)
}

func (t *Trust) checkKeys() error {
	seen := map[string]bool{}
	for i := range t.Key {
		k := &t.Key[i]
		clean, err := verify.CleanFingerprint(k.Fingerprint)
		if err != nil {
			return fmt.Errorf("trust.key %d: fingerprint %w", i+1, err)
		}
		if seen[clean] {
			return fmt.Errorf("trust.key %d: %s is listed twice", i+1, clean)
		}
		if k.Fingerprint, seen[clean] = clean, true; k.Roles != nil && len(k.Roles) == 0 {
			return fmt.Errorf("trust.key %d: roles is empty; omit it to allow every role", i+1)
		}
		if k.Documents != nil && len(k.Documents) == 0 {
			return fmt.Errorf("trust.key %d: documents is empty; omit it to allow releases and bare block maps", i+1)
		}
		for _, kind := range k.Documents {
			if !slices.Contains(verify.DocumentTypes(), kind) {
				return fmt.Errorf("trust.key %d: documents has %q; the types are %s", i+1, kind, strings.Join(verify.DocumentTypes(), ", "))
			}
		}
	}
	return nil
}

// Required lists the fields of <Update> that a signed document must have.
func (t *Trust) Required() []string {
	if !t.RequireMetadata {
		return t.Require
	}
	return append([]string{"product", "rollback_index"}, t.Require...)
}

// Policy is the trust policy of a device: the keyrings given, else the configured ones. Configured pins and roles apply to both. A
// sealed program accepts no keyring but its own. recorded is the last trusted time; zero is none. Errors: verify.SignatureError.
func (c *Config) Policy(keyring []string, recorded time.Time) (verify.Policy, error) {
	t := c.Trust
	p := verify.Policy{
		MinSigners: t.MinSigners, MinRSABits: t.MinRSABits, MinHash: t.MinHashBits, RefuseExpired: t.RefuseExpiredKeys,
		RoleSigners: t.RoleSigners,
	}
	if t.AllowRSA2048 {
		p.MinRSABits = 2048
	}
	p.Time, p.LowerBound = verify.TrustedClock(c.Build.Time, recorded)
	given := len(keyring) > 0
	switch {
	case given && initramfs.Sealed():
		return p, &verify.SignatureError{Reason: "this program is sealed with its keyring and accepts no other", Advice: sealedAdvice}
	case !given && len(c.Keyring) == 0:
		return p, &verify.SignatureError{Reason: "no keyring is configured, so nothing can be trusted", Advice: "set keyring in the configuration"}
	}
	advice := "correct the certificates that --keyring names; the signed document was not looked at"
	if !given {
		keyring, advice = c.Keyring, "correct keyring in "+c.File+", or the certificate; the signed document was not looked at"
	}
	k, err := verify.LoadKeyring(keyring...)
	if err != nil {
		return p, &verify.SignatureError{Reason: "loading the keyring", Advice: advice, Err: err}
	}
	if len(t.Key) > 0 {
		if k, err = t.pin(k, &p); err != nil {
			return p, &verify.SignatureError{Reason: "pinning keys of the keyring", Advice: "correct trust.key in " + c.File + ", or the keyring", Err: err}
		}
	}
	p.Keyring = k
	return p, nil
}

// pin keeps the configured keys of a keyring and sets what each may sign.
func (t *Trust) pin(k *verify.Keyring, p *verify.Policy) (*verify.Keyring, error) {
	p.Roles, p.Documents = map[string][]string{}, map[string][]string{}
	var pins []string
	for _, key := range t.Key {
		pins = append(pins, key.Fingerprint)
		if len(key.Roles) > 0 {
			p.Roles[key.Fingerprint] = key.Roles
		}
		if len(key.Documents) > 0 {
			p.Documents[key.Fingerprint] = key.Documents
		}
	}
	return k.Only(pins...)
}
