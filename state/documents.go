package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// Documents keeps the signed document of the image in each partition of a slot, with its signature, in the free part of a store's
// area between the two copies. A document is as trustworthy as the medium: verify its signature again. Not safe for concurrent
// use.
type Documents struct {
	area Area
	base int64 // offset of the first
	keys []string
	room int64 // bytes for each
}

// One document: magic, CRC32C of all bytes after it, lengths of key, document and signature, and those.
const (
	documentMagic  = "UPDMAPS1"
	documentHeader = 24
	minRoom        = 64 << 10
	maxRoom        = 4 << 20
)

// ErrNoDocument is wrapped by the error if no complete document is kept under a key.
var ErrNoDocument = errors.New("no signed document is kept of it")

// OpenDocuments divides the free part of a store's area among the keys. It returns nil, which keeps nothing, if there is no room
// for 64 KiB each. Other keys, or another order, lose the documents.
func OpenDocuments(area Area, keys []string) *Documents {
	return divide(area, maxCopy, area.Size()/2, keys)
}

// divide divides a part of an area, from base to end, among the keys.
func divide(area Area, base, end int64, keys []string) *Documents {
	if len(keys) == 0 {
		return nil
	}
	room := min((end-base)/int64(len(keys)), maxRoom) &^ (align - 1)
	if room < minRoom {
		return nil
	}
	return &Documents{area: area, base: base, keys: keys, room: room}
}

// place returns the offset of a key's document, -1 for an unknown key.
func (d *Documents) place(key string) int64 {
	if i := slices.Index(d.keys, key); i >= 0 {
		return d.base + int64(i)*d.room
	}
	return -1
}

// Put keeps a document and its signature, nil for a clearsigned one. When it returns nil, both are on stable storage and were read
// back. A power cut leaves the old document, the new one, or none.
func (d *Documents) Put(key string, doc, signature []byte) error {
	if d == nil {
		return nil
	}
	fail := func(err error) error { return &Error{Area: d.area.String(), Err: err} }
	at, size := d.place(key), int64(documentHeader+len(key)+len(doc)+len(signature))
	if at < 0 || size > d.room {
		return fail(fmt.Errorf("keeping the signed document of %s: %d bytes, expected at most %d", key, size, d.room))
	}
	b := make([]byte, wholePages(int(size)))
	copy(b, documentMagic)
	for i, part := range [][]byte{[]byte(key), doc, signature} {
		binary.LittleEndian.PutUint32(b[12+4*i:], uint32(len(part)))
	}
	copy(b[documentHeader:], slices.Concat([]byte(key), doc, signature))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:size], castagnoli))
	if _, err := d.area.WriteAt(b, at); err != nil {
		return fail(err)
	}
	if err := d.area.Sync(); err != nil {
		return fail(err)
	}
	got := make([]byte, len(b))
	if _, err := d.area.ReadBackAt(got, at); err != nil {
		return fail(err)
	}
	if !bytes.Equal(got, b) {
		return fail(fmt.Errorf("keeping the signed document of %s: the medium does not hold what was written", key))
	}
	return nil
}

// Get returns the document that was kept last; the signature is nil for a clearsigned one. The error wraps [ErrNoDocument] if
// there is none, or if it is damaged or cannot be read.
func (d *Documents) Get(key string) (doc, signature []byte, err error) {
	if d == nil || d.place(key) < 0 {
		return nil, nil, ErrNoDocument
	}
	b := make([]byte, sector)
	if err := readFull(d.area, b, d.place(key)); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoDocument, err)
	}
	var ends [3]int64
	end := int64(documentHeader)
	for i := range ends {
		end += int64(binary.LittleEndian.Uint32(b[12+4*i:]))
		ends[i] = end
	}
	if string(b[:8]) != documentMagic || end > d.room {
		return nil, nil, ErrNoDocument
	}
	b = append(b, make([]byte, max(wholeSectors(int(end))-sector, 0))...)
	if err := readFull(d.area, b[sector:], d.place(key)+sector); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoDocument, err)
	}
	if binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[12:end], castagnoli) || string(b[documentHeader:ends[0]]) != key {
		return nil, nil, ErrNoDocument
	}
	if ends[2] > ends[1] {
		signature = b[ends[1]:ends[2]]
	}
	return b[ends[0]:ends[1]], signature, nil
}
