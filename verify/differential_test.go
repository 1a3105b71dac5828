package verify_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"updater/verify"
)

// mutate changes up to three places of a signature or a document: bits, bytes, lines and repeated pieces.
func mutate(r *rand.Rand, in []byte) []byte {
	b := bytes.Clone(in)
	for range 1 + r.IntN(3) {
		i := r.IntN(len(b))
		switch r.IntN(7) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = "\n\r\t -\x00\x0c\x85"[r.IntN(8)]
		case 2:
			b = slices.Delete(b, i, min(len(b), i+1+r.IntN(4)))
		case 3:
			b = slices.Insert(b, i, byte(r.IntN(256)), byte(r.IntN(256)))
		case 4:
			j := r.IntN(len(b))
			b[i], b[j] = b[j], b[i]
		case 5: // a line is lost, doubled, escaped or gets a space
			lines := bytes.SplitAfter(b, []byte("\n"))
			k := r.IntN(len(lines))
			line := lines[k]
			lines[k] = [][]byte{nil, slices.Concat(line, line), slices.Concat([]byte("- "), line), append(bytes.TrimRight(bytes.Clone(line), "\n"), " \n"...)}[r.IntN(4)]
			b = slices.Concat(lines...)
		case 6:
			j := min(len(b), i+r.IntN(40))
			b = slices.Insert(b, j, bytes.Clone(b[i:j])...)
		}
		if len(b) == 0 {
			return in
		}
	}
	return b
}

// signatureOf is the binary form of a detached signature or of the one in a clearsigned document, as gpg reads its armor.
func (l *lab) signatureOf(t *testing.T, in []byte) []byte {
	t.Helper()
	at := bytes.LastIndex(in, []byte("-----BEGIN PGP SIGNATURE-----"))
	if at < 0 {
		return in
	}
	return l.gpg(t, jan2025, in[at:], "--dearmor")
}

// onlyUnhashed reports whether two signatures differ, and in nothing but the subpackets that no signature covers.
func onlyUnhashed(t *testing.T, a, b []byte) bool {
	t.Helper()
	hashed := func(sig []byte) []byte {
		list := packets(t, sig)
		for _, p := range list {
			p.Contents = editUnhashed(p.Contents, func([]byte) []byte { return nil })
		}
		return joined(t, list...)
	}
	return !bytes.Equal(a, b) && bytes.Equal(hashed(a), hashed(b))
}

// TestMutatedSignatures: gpgv accepts every mutated signature and clearsigned document that Verify accepts, and reads the same text. No
// other document is accepted. One class may differ: subpackets that no signature covers, by which gpgv looks for the key; there nothing
// but those may have changed.
func TestMutatedSignatures(t *testing.T) {
	l := newLab(t)
	doc := []byte("a\n- b\n\n-- c\nFrom d\n \xc3\xa4\tb\nend\n")
	certs := l.export(t, "alice")
	p := verify.Policy{Keyring: ring(t, certs), Time: now2025}
	detached := l.sign(t, "alice", jan2025, doc)
	block, clear := l.sign(t, "alice", jan2025, doc, "--armor"), l.clearsign(t, "alice", jan2025, doc)
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	asked := map[string]bool{}
	compared, unhashed := 0, 0
	for range 5_000 {
		if d := mutate(r, doc); !bytes.Equal(d, doc) {
			if _, err := p.Verify(d, detached); err == nil {
				t.Fatalf("another document is accepted: %q", d)
			}
		}
		for _, kind := range [][]byte{detached, block, clear} {
			in, text, sig := mutate(r, kind), doc, []byte(nil)
			if isClear := &kind[0] == &clear[0]; isClear {
				text = in
			} else {
				sig = in
			}
			got, err := p.Verify(text, sig)
			if err != nil || asked[string(in)] {
				continue
			}
			asked[string(in)] = true
			if onlyUnhashed(t, l.signatureOf(t, in), l.signatureOf(t, kind)) {
				unhashed++
				continue
			}
			switch compared++; {
			case sig != nil:
				if words := l.gpgv(t, certs, doc, sig); words != "GOODSIG" {
					t.Errorf("gpgv says %s of the signature %q", words, sig)
				}
			case bytes.Contains(in, []byte("\nHash: ")): // gpgv expects SHA-1 without that header
				if plain := l.gpgvText(t, certs, in); string(plain) != string(got.Data) && string(plain)+"\n" != string(got.Data) {
					t.Errorf("gpgv reads %q, and Verify %q, in %q", plain, got.Data, in)
				}
			}
		}
	}
	t.Logf("%d distinct mutations that were accepted are compared; in %d only unhashed subpackets changed", compared, unhashed)
	if compared < 3 {
		t.Errorf("%d mutations are compared, expected 3 or more", compared)
	}
}
