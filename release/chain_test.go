package release_test

import (
	"bytes"
	"testing"

	"updater/release"
)

// A chain survives packing, and no damage of it costs more than it has bytes.
func TestChain(t *testing.T) {
	chain := []release.Link{{Number: 4, Document: []byte("four"), Signature: []byte("s")}, {Number: 5, Document: []byte("clearsigned")}}
	packed, err := release.EncodeChain(chain)
	if err != nil {
		t.Fatal(err)
	}
	got, err := release.DecodeChain(packed)
	if err != nil || len(got) != 2 || got[0].Number != 4 || !bytes.Equal(got[1].Document, chain[1].Document) || got[1].Signature != nil {
		t.Errorf("DecodeChain() = %v, %v; want %v", got, err, chain)
	}
	for cut := 1; cut < len(packed); cut++ {
		if got, err := release.DecodeChain(packed[:cut]); err == nil && len(got) != 1 {
			t.Errorf("%d bytes of a chain: %v; want an error", cut, got)
		}
	}
	if _, err := release.DecodeChain(bytes.Repeat([]byte{0}, 17*16)); err == nil {
		t.Error("a chain of 17 links was accepted")
	}
	if _, err := release.EncodeChain(make([]release.Link, release.MaxLinks+1)); err == nil {
		t.Error("EncodeChain() packed 17 links")
	}
	if _, err := release.EncodeChain([]release.Link{{Document: make([]byte, release.MaxChain)}}); err == nil {
		t.Error("EncodeChain() packed more than MaxChain")
	}
}
