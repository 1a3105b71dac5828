package source

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/therootcompany/xz"
)

// xzAlone is a block that is decoded as a stream, without knowing its size.
type xzAlone struct {
	block *xzBlock
	z     *xz.Reader
}

func (x *xzBlocks) newAlone() (*xzAlone, error) {
	block, err := newXZBlock(x.src, x.check)
	if err != nil {
		return nil, err
	}
	var tail io.Reader
	lazy := readerFunc(func(p []byte) (int, error) { // the record is known once the block has been read
		if tail == nil {
			tail = bytes.NewReader(x.tail(block.record))
		}
		return tail.Read(p)
	})
	z, err := x.reader(io.MultiReader(bytes.NewReader(x.header), block, lazy))
	if err != nil {
		return nil, noEOF(err)
	}
	return &xzAlone{block: block, z: z}, nil
}

// xzBlock returns the bytes of one block: header, data, padding and check. The last filter of every chain is LZMA2, whose chunks
// have lengths, so that the end is found without decoding (.xz file format 1.2, section 5.3.1; xz, src/liblzma/lzma/lzma2_decoder.c).
type xzBlock struct {
	src    *bufio.Reader
	check  int64
	left   int64    // bytes to return before the next chunk
	packed int64    // bytes of the chunks so far
	ended  bool     // no chunk follows
	record xzRecord // complete once ended
}

func newXZBlock(src *bufio.Reader, check int64) (*xzBlock, error) {
	head, err := src.Peek(1)
	if err != nil {
		return nil, noEOF(err)
	}
	size := (int64(head[0]) + 1) * 4
	return &xzBlock{src: src, check: check, left: size, record: xzRecord{unpadded: uint64(size)}}, nil
}

// Read implements io.Reader.
func (b *xzBlock) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.ended {
			return 0, io.EOF
		}
		if err := b.chunk(); err != nil {
			return 0, noEOF(err)
		}
	}
	n, err := b.src.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, noEOF(err)
}

// chunk determines the length of the next chunk or, after the last one, of padding and check.
func (b *xzBlock) chunk() error {
	control, err := b.src.Peek(1)
	if err != nil {
		return err
	}
	kind := control[0]
	if kind == 0 {
		b.ended = true
		b.packed++
		b.left = 1 + -b.packed&3 + b.check
		b.record.unpadded += uint64(b.packed + b.check)
		return nil
	}
	head, err := b.src.Peek(5)
	if err != nil && (err != io.EOF || len(head) < 3) {
		return err
	}
	size := int64(binary.BigEndian.Uint16(head[1:])) + 1
	switch {
	case kind <= 2: // not compressed
		b.left = 3 + size
	case kind < 0x80:
		return errors.New("corrupt: invalid LZMA2 control byte")
	case len(head) < 5:
		return io.EOF
	default:
		size += int64(kind&0x1f) << 16
		b.left = 5 + int64(binary.BigEndian.Uint16(head[3:])) + 1
		if kind >= 0xc0 { // properties
			b.left++
		}
	}
	b.packed += b.left
	b.record.size += uint64(size)
	return nil
}

// lzma2 is the ID of the filter.
const lzma2 = 0x21

// xzDict returns the dictionary size from the LZMA2 filter of a block header (sections 3.1.5 and 5.3.1), 0 if it cannot be parsed.
func xzDict(head []byte) int64 {
	if len(head) < 2 || (int(head[0])+1)*4 > len(head) {
		return 0
	}
	flags, rest := head[1], head[2:(int(head[0])+1)*4]
	number := func() (v uint64) {
		v, n := binary.Uvarint(rest)
		rest = rest[max(n, 0):]
		return v
	}
	for _, size := range []byte{0x40, 0x80} {
		if flags&size != 0 {
			number()
		}
	}
	for range flags&3 + 1 {
		id, size := number(), number()
		if size > uint64(len(rest)) {
			return 0
		}
		if id == lzma2 && size == 1 && rest[0] <= 40 {
			bits := int64(rest[0])
			if bits == 40 {
				return 1<<32 - 1
			}
			return (2 | bits&1) << (bits/2 + 11)
		}
		rest = rest[size:]
	}
	return 0
}
