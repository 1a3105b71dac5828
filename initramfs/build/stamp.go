package build

import (
	"bytes"
	"errors"
	"fmt"

	"updater/initramfs"
)

// sealPlace is the placeholder for the seal in an unsealed binary (initramfs/seal.go).
const sealPlace = "updater-policy-seal:0000000000000000000000000000000000000000000000000000000000000000"

const sealPrefix = len(sealPlace) - 64

// stampSeal returns a copy of the program sealed with the digest of the policy. It starts only with exactly these files.
func stampSeal(program []byte, policy map[string][]byte) ([]byte, error) {
	switch n := bytes.Count(program, []byte(sealPlace)); n {
	case 1:
	case 0:
		return nil, errors.New("no placeholder for the seal of keyring and configuration found; is the program sealed already?")
	default:
		return nil, fmt.Errorf("found %d placeholders for the seal of keyring and configuration, expected one", n)
	}
	at := bytes.Index(program, []byte(sealPlace)) + sealPrefix
	sealed := bytes.Clone(program)
	copy(sealed[at:], initramfs.PolicyDigest(policy))
	return sealed, nil
}
