package verify

import (
	"crypto"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// weakness returns the reason why a key is not accepted for signing, "" if it is accepted. Unlisted kinds are not.
func (p Policy) weakness(key *packet.PublicKey) string {
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if bits, err := key.BitLength(); err != nil || int(bits) < p.rsaBits() {
			return fmt.Sprintf("an RSA key of %d bits, expected at least %d", bits, p.rsaBits())
		}
		return ""
	case packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448:
		return ""
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoECDSA:
		curve, _ := key.Curve() // "" for an unknown one
		switch curve {
		case packet.Curve25519, packet.Curve448, packet.CurveNistP256, packet.CurveNistP384, packet.CurveNistP521:
			return ""
		}
		return fmt.Sprintf("on the curve %s, which is not accepted", curve)
	}
	return fmt.Sprintf("of the kind %s, which is not accepted", algorithmName(key))
}

// algorithmName names a key in gpg's way, such as "rsa3072" or "ed25519".
func algorithmName(key *packet.PublicKey) string {
	bits, _ := key.BitLength()
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoRSAEncryptOnly:
		return fmt.Sprintf("rsa%d", bits)
	case packet.PubKeyAlgoDSA:
		return fmt.Sprintf("dsa%d", bits)
	case packet.PubKeyAlgoEd25519:
		return "ed25519"
	case packet.PubKeyAlgoEd448:
		return "ed448"
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		switch curve, _ := key.Curve(); curve {
		case packet.Curve25519:
			return "ed25519"
		case packet.Curve448:
			return "ed448"
		case packet.CurveNistP256, packet.CurveNistP384, packet.CurveNistP521:
			return "nist" + strings.ToLower(string(curve))
		default:
			return strings.ToLower(string(curve))
		}
	}
	return fmt.Sprintf("algorithm %d", key.PubKeyAlgo)
}

// hashID names a hash as the bmap format does.
func hashID(h crypto.Hash) string { return strings.ToLower(armorHashName(h)) }

// armorHashName names a hash as the Hash header of a clearsigned document does.
func armorHashName(h crypto.Hash) string {
	name := h.String() // SHA-512, SHA3-256, RIPEMD-160
	if strings.HasPrefix(name, "SHA3-") {
		return name
	}
	return strings.ReplaceAll(name, "-", "")
}
