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

// TestMutatedSignatures: what is accepted of mutated signatures and clearsigned documents, gpgv accepts too, and reads the same text.
// No other document is accepted.
func TestMutatedSignatures(t *testing.T) {
	l := newLab(t)
	doc := []byte("a\n- b\n\n-- c\nFrom d\n \xc3\xa4\t\nend\n")
	certs := l.export(t, "alice")
	p := verify.Policy{Keyring: ring(t, certs), Time: now2025}
	detached, armor, clear := l.sign(t, "alice", jan2025, doc), l.sign(t, "alice", jan2025, doc, "--armor"), l.clearsign(t, "alice", jan2025, doc)
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	asked, accepted := map[string]bool{}, 0
	for range 10_000 {
		if d := mutate(r, doc); !bytes.Equal(d, doc) {
			if _, err := p.Verify(d, detached); err == nil {
				t.Fatalf("another document is accepted: %q", d)
			}
		}
		for _, kind := range [][]byte{detached, armor} {
			sig := mutate(r, kind)
			if _, err := p.Verify(doc, sig); err != nil || asked[string(sig)] {
				continue
			}
			asked[string(sig)] = true
			accepted++
			if words := l.gpgv(t, certs, doc, sig); words != "GOODSIG" {
				t.Errorf("gpgv says %s of the signature %q", words, sig)
			}
		}
		c := mutate(r, clear)
		got, err := p.Verify(c, nil)
		if err != nil || asked[string(c)] || !bytes.Contains(c, []byte("\nHash: ")) { // gpgv expects SHA-1 without that header
			continue
		}
		asked[string(c)] = true
		accepted++
		if plain := l.gpgvText(t, certs, c); string(plain) != string(got.Data) && string(plain)+"\n" != string(got.Data) {
			t.Errorf("gpgv reads %q, and Verify %q, in %q", plain, got.Data, c)
		}
	}
	t.Logf("%d distinct mutations were accepted", accepted)
	if accepted < 5 {
		t.Errorf("%d mutations were accepted; the test compares too little", accepted)
	}
}
