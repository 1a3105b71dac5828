package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"updater/initramfs"
	"updater/update"
	"updater/verify"
)

// TrustConfig is [trust]: what a signed document must be. The defaults are the strictest that a plain, signed bmap
// passes; all but allow_rsa2048 only tighten them.
type TrustConfig struct {
	MinSigners        int         `toml:"min_signers"`         // distinct primary keys; 0 is 1
	MinRSABits        int         `toml:"min_rsa_bits"`        // 3072 or more; 0 is 3072
	AllowRSA2048      bool        `toml:"allow_rsa2048"`       // the one key that lowers a floor
	MinHashBits       int         `toml:"min_hash_bits"`       // 256, 384 or 512; 0 is 256
	RefuseExpiredKeys bool        `toml:"refuse_expired_keys"` // also for what they signed before
	RequireMetadata   bool        `toml:"require_metadata"`    // product and rollback index must be signed
	Require           []string    `toml:"require"`             // further fields of <Update> that must be there
	Key               []KeyConfig `toml:"key"`                 // pinned keys; none: every key of the keyring
}

// KeyConfig is one [[trust.key]].
type KeyConfig struct {
	Fingerprint string   `toml:"fingerprint"` // of the primary key, in full
	Roles       []string `toml:"roles"`       // what it may sign for; none: every role
}

// ReleaseConfig is [release]: what the image that this configuration is part of calls itself. It counts where the
// state store cannot be read.
type ReleaseConfig struct {
	Version       string `toml:"version"`
	RollbackIndex int64  `toml:"rollback_index"`
}

func (t *TrustConfig) check() error {
	switch {
	case t.MinSigners < 0 || t.MinSigners > 16:
		return fmt.Errorf("trust.min_signers is %d, expected 1 to 16", t.MinSigners)
	case t.MinRSABits != 0 && t.AllowRSA2048:
		return fmt.Errorf("trust.min_rsa_bits and trust.allow_rsa2048 contradict each other; expected one of both")
	case t.MinRSABits != 0 && (t.MinRSABits < verify.DefaultMinRSABits || t.MinRSABits > 16384):
		return fmt.Errorf("trust.min_rsa_bits is %d, expected %d to 16384; allow_rsa2048 is the way to weaker keys", t.MinRSABits, verify.DefaultMinRSABits)
	case !slices.Contains([]int{0, 256, 384, 512}, t.MinHashBits):
		return fmt.Errorf("trust.min_hash_bits is %d, expected 256, 384 or 512", t.MinHashBits)
	}
	for _, name := range t.Require {
		if !slices.Contains(update.Fields(), name) {
			return fmt.Errorf("trust.require has %q, expected some of %s", name, strings.Join(update.Fields(), ", "))
		}
	}
	seen := map[string]bool{}
	for i := range t.Key {
		k := &t.Key[i]
		clean, err := verify.CleanFingerprint(k.Fingerprint)
		if err != nil {
			return fmt.Errorf("trust.key %d: fingerprint %w", i+1, err)
		}
		if seen[clean] {
			return fmt.Errorf("trust.key %d: %s is there twice", i+1, clean)
		}
		if k.Fingerprint, seen[clean] = clean, true; k.Roles != nil && len(k.Roles) == 0 {
			return fmt.Errorf("trust.key %d: roles is empty; leave it out for every role", i+1)
		}
	}
	return nil
}

// required are the fields of <Update> that must be there.
func (t *TrustConfig) required() []string {
	if !t.RequireMetadata {
		return t.Require
	}
	return append([]string{"product", "rollback_index"}, t.Require...)
}

// policy is the trust policy of a device at a time: the given keyrings, else the configured ones. The configured pins
// and roles hold for both, and a sealed program takes no other keyring than its own.
func (c *Config) policy(keyring []string, recorded time.Time) (verify.Policy, error) {
	t := c.Trust
	p := verify.Policy{
		MinSigners: t.MinSigners, MinRSABits: t.MinRSABits, MinHash: t.MinHashBits, RefuseExpired: t.RefuseExpiredKeys,
	}
	if t.AllowRSA2048 {
		p.MinRSABits = 2048
	}
	p.Time, p.LowerBound = verify.TrustedClock(buildTime(), recorded)
	own := len(keyring) > 0
	switch {
	case own && initramfs.Sealed():
		return p, &verify.SignatureError{Reason: "this program is sealed with its keyring, and takes no other"}
	case !own && len(c.Keyring) == 0:
		return p, &verify.SignatureError{Reason: "no keyring is configured, so nothing can be trusted", Advice: "set keyring in the configuration"}
	case !own:
		keyring = c.Keyring
	}
	k, err := verify.LoadKeyring(keyring...)
	if err == nil && len(t.Key) > 0 {
		k, p.Roles, err = t.pin(k)
	}
	if err != nil {
		return p, &verify.SignatureError{Reason: "loading the keyring", Err: err}
	}
	p.Keyring = k
	return p, nil
}

// pin keeps the configured keys of a keyring, and says what they may sign for.
func (t *TrustConfig) pin(k *verify.Keyring) (*verify.Keyring, map[string][]string, error) {
	roles := map[string][]string{}
	var pins []string
	for _, key := range t.Key {
		pins = append(pins, key.Fingerprint)
		if len(key.Roles) > 0 {
			roles[key.Fingerprint] = key.Roles
		}
	}
	only, err := k.Only(pins...)
	return only, roles, err
}
