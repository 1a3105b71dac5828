package source

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"github.com/therootcompany/xz"
)

// Limits of blocks decoded in parallel. xz -T -6 writes blocks of 24 MiB. The pieces keep both cores busy while one block is up to
// half a block ahead.
const (
	maxXZBlock  = 32 << 20  // bytes of a block, decoded
	xzPacked    = 16 << 20  // bytes of both blocks, encoded; a longer one is decoded as a stream
	xzPiece     = 256 << 10 // bytes of a buffer
	xzPieces    = 44        // decoded ahead, of both blocks
	xzAhead     = 38        // of one block, so that the other can always go on
	xzHeader    = 12        // bytes of a stream header, and of a stream footer
	xzBlockHead = 1024      // most bytes of a block header
)

// xzBlocks decodes the blocks of one stream (.xz file format 1.2, section 2.1): short blocks with sizes in their headers two at a
// time, others one after another. It returns io.EOF after the stream footer.
type xzBlocks struct {
	src      *bufio.Reader
	dict     uint32
	parallel bool
	header   []byte // of the stream
	check    int64  // bytes of the check of a block

	records []xzRecord
	queue   []*xzJob
	alone   *xzAlone // a block decoded as a stream, or nil; the queue is empty then
	end     error    // why no block follows the queue: io.EOF or an error
	err     error    // sticky
	quit    chan struct{}
	wait    sync.WaitGroup
	pieces  chan []byte     // buffers for decoded data; nil stands for one to allocate
	spare   chan []byte     // buffers for encoded data, to reuse
	readers chan *xz.Reader // with their dictionaries, to reuse
}

// xzRecord is the entry of a block in the index (section 4.3).
type xzRecord struct{ unpadded, size uint64 }

// xzJob is a block being decoded in parallel.
type xzJob struct {
	in    xzInput
	tail  []byte      // index and footer of a stream with this block alone
	out   chan []byte // closed after the last piece, when err is set
	err   error
	piece []byte // being read
	taken int    // bytes of it
}

// newXZBlocks begins a stream at its header, which the caller has checked.
func newXZBlocks(src *bufio.Reader, dict uint32, parallel bool) *xzBlocks {
	x := &xzBlocks{
		src: src, dict: dict, parallel: parallel, header: make([]byte, xzHeader), quit: make(chan struct{}),
		pieces: make(chan []byte, xzPieces), spare: make(chan []byte, xzPacked/xzPiece), readers: make(chan *xz.Reader, 2),
	}
	_, _ = io.ReadFull(src, x.header)
	for range xzPieces {
		x.pieces <- nil
	}
	if id := x.header[7]; id > 0 {
		x.check = 4 << ((id - 1) / 3)
	}
	return x
}

// Read implements io.Reader.
func (x *xzBlocks) Read(p []byte) (n int, err error) {
	for x.err == nil {
		if x.alone == nil {
			x.fill()
		}
		switch {
		case x.alone != nil:
			n, err = x.readAlone(p)
		case len(x.queue) > 0:
			n, err = x.readJob(p)
		default:
			err = x.end
		}
		x.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// readJob reads from the first job and removes it at its end, where it returns 0, nil.
func (x *xzBlocks) readJob(p []byte) (int, error) {
	job := x.queue[0]
	if job.taken == len(job.piece) {
		if job.piece != nil {
			x.pieces <- job.piece[:xzPiece]
		}
		if job.piece = <-job.out; job.piece == nil {
			x.queue = x.queue[1:]
			return 0, job.err
		}
		job.taken = 0
	}
	n := copy(p, job.piece[job.taken:])
	job.taken += n
	return n, nil
}

// readAlone reads from the block decoded as a stream and removes it at its end, where it returns 0, nil.
func (x *xzBlocks) readAlone(p []byte) (int, error) {
	n, err := x.alone.z.Read(p)
	if err == io.EOF {
		x.records = append(x.records, x.alone.block.record)
		x.recycle(x.alone.z)
		x.alone, err = nil, nil
	}
	return n, err
}

// fill starts jobs until two run or the next block cannot be decoded in parallel.
func (x *xzBlocks) fill() {
	for len(x.queue) < 2 && x.end == nil {
		room := int64(xzPacked)
		if len(x.queue) > 0 {
			room -= x.queue[0].in.size
		}
		var job *xzJob
		job, x.end = x.next(room)
		switch {
		case job != nil:
			x.queue = append(x.queue, job)
			x.wait.Go(func() { x.decode(job) })
		case x.end == nil && len(x.queue) == 0:
			x.alone, x.end = x.newAlone()
			return
		default:
			return
		}
	}
}

// next reads a block into memory. At the index it reads index and footer and returns io.EOF. A block that does not fit into room
// or has no sizes is left in place: both results are nil then.
func (x *xzBlocks) next(room int64) (*xzJob, error) {
	head, err := x.src.Peek(1)
	if err != nil {
		return nil, noEOF(err)
	}
	if head[0] == 0 {
		if err := x.readIndex(); err != nil {
			return nil, noEOF(err)
		}
		return nil, io.EOF
	}
	if head, err = x.src.Peek(xzBlockHead); err != nil && err != io.EOF {
		return nil, err
	}
	if dict := xzDict(head); dict > int64(x.dict) {
		return nil, &LimitError{What: "xz dictionary", Need: dict, Limit: int64(x.dict)}
	}
	r, padded, ok := parseXZBlock(head)
	if !ok || !x.parallel || padded > room {
		return nil, nil
	}
	r.unpadded += uint64(x.check)
	x.records = append(x.records, r)
	job := &xzJob{in: xzInput{size: padded + x.check, spare: x.spare}, tail: x.tail(r), out: make(chan []byte, xzAhead)}
	if err := job.in.fill(x.src); err != nil {
		return nil, noEOF(err)
	}
	return job, nil
}

// parseXZBlock reads the sizes from a block header (section 3.1): the record, without the check, and the bytes of header and
// padded data. ok is false if a size is missing or exceeds the limits. The decoder checks everything else.
func parseXZBlock(head []byte) (r xzRecord, padded int64, ok bool) {
	if len(head) < 2 || head[0] == 0 || head[1]&0xc0 != 0xc0 {
		return r, 0, false
	}
	size := (int64(head[0]) + 1) * 4
	packed, n := binary.Uvarint(head[2:min(len(head), 11)])
	if n <= 0 || packed == 0 || packed > maxXZBlock {
		return r, 0, false
	}
	whole, m := binary.Uvarint(head[2+n : min(len(head), 11+n)])
	if m <= 0 || whole > maxXZBlock {
		return r, 0, false
	}
	return xzRecord{uint64(size) + packed, whole}, size + (int64(packed)+3)&^3, true
}

// tail returns index and footer of a stream of one block.
func (x *xzBlocks) tail(r xzRecord) []byte {
	index := []byte{0, 1}
	index = binary.AppendUvarint(index, r.unpadded)
	index = binary.AppendUvarint(index, r.size)
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	backward := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	backward = append(backward, x.header[6:8]...)
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(backward))
	return append(append(index, backward...), 'Y', 'Z')
}

// errXZClosed ends the jobs of a closed file.
var errXZClosed = errors.New("closed")

// decode decodes a block as a stream of one block.
func (x *xzBlocks) decode(job *xzJob) {
	defer close(job.out)
	z, err := x.reader(io.MultiReader(bytes.NewReader(x.header), &job.in, bytes.NewReader(job.tail)))
	for err == nil {
		piece, n := x.newPiece(), 0
		if piece == nil {
			err = errXZClosed
			break
		}
		for n < len(piece) && err == nil {
			var k int
			k, err = z.Read(piece[n:])
			n += k
		}
		if n == 0 {
			x.pieces <- piece
			break
		}
		select {
		case job.out <- piece[:n]:
		case <-x.quit:
			err = errXZClosed
		}
	}
	if err != io.EOF {
		job.err = err
		return
	}
	x.recycle(z)
}

func (x *xzBlocks) recycle(z *xz.Reader) {
	select {
	case x.readers <- z:
	default:
	}
}

func (x *xzBlocks) reader(r io.Reader) (*xz.Reader, error) {
	select {
	case z := <-x.readers:
		return z, z.Reset(r)
	default:
		return xz.NewReader(r, x.dict)
	}
}

// newPiece waits for a buffer for decoded data. It returns nil once the file is closed.
func (x *xzBlocks) newPiece() []byte {
	select {
	case piece := <-x.pieces:
		if piece == nil {
			piece = make([]byte, xzPiece)
		}
		return piece
	case <-x.quit:
		return nil
	}
}

// readIndex reads index and footer (sections 4 and 2.1.2) and compares the index with the blocks.
func (x *xzBlocks) readIndex() error {
	sum := crc32.NewIEEE()
	in := &xzIndex{src: x.src, sum: sum}
	in.number() // the indicator
	if n := in.number(); in.err == nil && n != uint64(len(x.records)) {
		return fmt.Errorf("corrupt: the index lists %d blocks, the stream has %d", n, len(x.records))
	}
	for i, r := range x.records {
		if got := (xzRecord{in.number(), in.number()}); in.err == nil && got != r {
			return fmt.Errorf("corrupt: the index lists block %d with %d bytes, %d decoded; it has %d, %d", i, got.unpadded, got.size, r.unpadded, r.size)
		}
	}
	for in.err == nil && in.n%4 != 0 {
		if b := in.byte(); b != 0 && in.err == nil {
			return errors.New("corrupt: the padding of the index is not zero")
		}
	}
	if in.err != nil {
		return in.err
	}
	var rest [4 + xzHeader]byte
	if _, err := io.ReadFull(x.src, rest[:]); err != nil {
		return err
	}
	footer := rest[4:]
	switch {
	case binary.LittleEndian.Uint32(rest[:]) != sum.Sum32(), binary.LittleEndian.Uint32(footer) != crc32.ChecksumIEEE(footer[4:10]):
		return errors.New("corrupt: the checksum of index or footer does not match")
	case in.n > math.MaxUint32, uint64(binary.LittleEndian.Uint32(footer[4:]))*4 != in.n,
		!bytes.Equal(footer[8:10], x.header[6:8]), string(footer[10:]) != "YZ":
		return errors.New("corrupt: the footer does not match the stream")
	}
	return nil
}

// xzIndex reads the bytes of an index and computes their checksum.
type xzIndex struct {
	src *bufio.Reader
	sum io.Writer
	n   uint64
	err error // sticky
}

func (i *xzIndex) byte() byte {
	if i.err != nil {
		return 0
	}
	b, err := i.src.ReadByte()
	if err != nil {
		i.err = noEOF(err)
		return 0
	}
	i.n++
	_, _ = i.sum.Write([]byte{b})
	return b
}

// number reads a multibyte integer (section 1.2): at most 9 bytes, in its shortest form.
func (i *xzIndex) number() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := i.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 && i.err == nil {
				i.err = errors.New("corrupt: a number of the index is not in its shortest form")
			}
			return v
		}
		if shift == 56 {
			i.err = errors.New("corrupt: a number of the index is too long")
			return 0
		}
	}
}

// close ends the jobs.
func (x *xzBlocks) close() {
	close(x.quit)
	x.wait.Wait()
}
