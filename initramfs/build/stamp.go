package build

import (
	"bytes"
	"errors"
	"fmt"

	"updater/initramfs"
)

// sealPlace is where a binary keeps its seal, as long as it has none (initramfs/seal.go).
const sealPlace = "updater-policy-seal:0000000000000000000000000000000000000000000000000000000000000000"

const sealPrefix = len(sealPlace) - 64

// stampSeal returns the program with the digest of the policy in it. The program starts only with exactly
// these files afterwards.
func stampSeal(program []byte, policy map[string][]byte) ([]byte, error) {
	switch n := bytes.Count(program, []byte(sealPlace)); n {
	case 1:
	case 0:
		return nil, errors.New("has no place for the seal of keyring and configuration, or is sealed already")
	default:
		return nil, fmt.Errorf("has %d places for the seal of keyring and configuration, expected one", n)
	}
	at := bytes.Index(program, []byte(sealPlace)) + sealPrefix
	sealed := bytes.Clone(program)
	copy(sealed[at:], initramfs.PolicyDigest(policy))
	return sealed, nil
}
