// Package verify decides whether a document may be trusted, and checks bytes against digests.
//
// # Signatures
//
// [LoadKeyring] reads OpenPGP certificates once; [Policy.Verify] takes a document and its signature and returns the bytes
// that were signed. It fails closed: no key, no signature, anything unreadable, unknown or ambiguous is a refusal, always a
// [*SignatureError] that names the key, the time and the reason. The guarantees:
//
//   - [Signed.Data] is exactly what the signature covers. Nothing of the input is opened or read a second time.
//   - Signatures are either detached, binary (type 0x00) and over the document as it is, or part of a clearsigned document
//     (type 0x01, RFC 9580 section 7) in the one spelling for which signed text and plain text cannot differ.
//   - Every signature by a key of the keyring must be good: one bad beside a good one refuses the document. Signatures by
//     keys that are not in the keyring are ignored beside a good one, so that keys can be replaced.
//   - A threshold counts distinct primary keys, never signatures or subkeys.
//   - Algorithms come from a list of allowed ones: SHA-256 or stronger, RSA of [Policy.MinRSABits], Ed25519, Ed448, ECDSA on
//     NIST P-256, P-384 and P-521. Subkeys need the signing flag and a cross-certificate.
//   - Only the Go library judges; no gpg process runs.
//
// # Time
//
// A device may not know the time. [Policy.Time] is the trusted clock, see [TrustedClock]. A signature is judged at
// max(Policy.Time, its own creation time): only the holder of the secret key can choose the creation time. Therefore:
//
//   - A signature made while its key was valid stays good after the key expired, for a device may be updated years later.
//     A signature made before the key existed or after it expired is refused.
//   - A signature that expired by the trusted clock is refused.
//   - A revoked key or subkey is refused whatever the reason, whatever the dates: a thief of the key can choose the date.
//   - A signature more than [MaxClockSkew] ahead of the clock is refused, unless the clock is only a lower bound.
//
// # Limits
//
// A good signature proves who made the document, not that it is new, meant for this device, or lists every byte of an image: other packages read
// product, expiry and rollback index from the signed document. The holder of the secret key can choose the date in a signature. The web of trust,
// trust signatures and designated revokers are not used; a keyring is trusted as it is, and must come from a place that an attacker cannot write.
package verify
