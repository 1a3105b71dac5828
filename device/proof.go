package device

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// proofMagic begins the entry kept in place of a block map's own signature: the release that pins the map.
const proofMagic = "UPDREL1\x00"

// encodeProof packs a release document and its signature, which is nil for a clearsigned one.
func encodeProof(doc, signature []byte) []byte {
	b := append([]byte(proofMagic), binary.LittleEndian.AppendUint32(nil, uint32(len(doc)))...)
	return append(append(b, doc...), signature...)
}

// decodeProof unpacks a release. ok is false for a signature of the block map itself.
func decodeProof(b []byte) (doc, signature []byte, ok bool, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(proofMagic))
	if !ok {
		return nil, nil, false, nil
	}
	if len(rest) < 4 || int64(binary.LittleEndian.Uint32(rest)) > int64(len(rest)-4) {
		return nil, nil, true, errors.New("the kept release is cut short")
	}
	n := binary.LittleEndian.Uint32(rest)
	doc, signature = rest[4:4+n], rest[4+n:]
	if len(signature) == 0 {
		signature = nil
	}
	return doc, signature, true, nil
}

// Kept holds the documents kept of the release of a slot. None is trusted before its signature is checked again.
type Kept struct {
	Document, Signature []byte            // of the release, or of the block map of the only role
	Maps                map[string][]byte // block maps of a release, by role; nil for a bare map
	Source              string            // where it was installed from: a path, or an address without secrets
}

// Kept reads the documents kept of the release of a slot. Errors wrap state.ErrNoDocument.
func (d *Device) Kept(slot string) (k Kept, err error) {
	err = d.reading(func() error {
		for _, role := range d.Config.Slot[0].Roles() {
			bmap, proof, err := d.maps.Get(slot + "/" + role)
			if err != nil {
				return err
			}
			doc, signature, isRelease, err := decodeProof(proof)
			if err != nil {
				return err
			}
			k.Source, k.Document, k.Signature = d.known.Slots[slot][role].Source, bmap, proof
			if !isRelease {
				continue
			}
			if k.Maps == nil {
				k.Maps = map[string][]byte{}
			}
			k.Document, k.Signature, k.Maps[role] = doc, signature, bmap
		}
		return nil
	})
	return k, err
}
