package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Chain keeps a few bytes in two places of a store's area, after its second copy. The places are written in turn: a power cut leaves
// the old bytes or the new ones, never none. Not safe for concurrent use. Hold the lock of the boot state.
type Chain struct{ places *Documents }

var chainKeys = []string{"keyring/0", "keyring/1"}

// OpenChain returns nil, which keeps nothing, if there is no room for 64 KiB in each place.
func OpenChain(area Area) *Chain {
	half := area.Size() / 2 &^ (align - 1)
	d := divide(area, half+maxCopy, area.Size(), chainKeys)
	if d == nil {
		return nil
	}
	return &Chain{d}
}

// Get returns the bytes kept last, nil if there are none or if they cannot be read.
func (c *Chain) Get() []byte {
	data, _, _ := c.newest()
	return data
}

// newest returns the newest bytes, their generation, and the index of the other place.
func (c *Chain) newest() (data []byte, generation uint64, other int) {
	if c == nil {
		return nil, 0, 0
	}
	for i, key := range chainKeys {
		if b, _, err := c.places.Get(key); err == nil && len(b) >= 8 && binary.LittleEndian.Uint64(b) > generation {
			data, generation, other = b[8:], binary.LittleEndian.Uint64(b), 1-i
		}
	}
	return data, generation, other
}

// Put keeps bytes. They are on stable storage and were read back when it returns nil. Errors: [Error].
func (c *Chain) Put(data []byte) error {
	if c == nil {
		return &Error{Area: "behind the second copy", Err: fmt.Errorf("it has no room for keyrings; the area needs %d bytes or more", 2*(maxCopy+2*minRoom))}
	}
	_, generation, other := c.newest()
	err := c.places.Put(chainKeys[other], append(binary.LittleEndian.AppendUint64(nil, generation+1), data...), nil)
	if err == nil && !bytes.Equal(c.Get(), data) {
		err = &Error{Area: c.places.area.String(), Err: errors.New("a keyring that could not be read before it was replaced still counts; try again")}
	}
	return err
}
