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

// Limits of a block that is read whole, so that another is decoded beside it: xz -T -6 makes blocks of 24 MiB. Both keep
// a core busy when one may be half a block ahead.
const (
	maxXZBlock  = 32 << 20
	xzPacked    = 16 << 20  // bytes of both blocks, packed; a longer one is decoded alone
	xzPiece     = 256 << 10 // bytes of a buffer
	xzPieces    = 44        // that are decoded ahead, of both blocks
	xzAhead     = 38        // of one block, so that the other can always go on
	xzHeader    = 12        // bytes of a stream's header, and of its footer
	xzBlockHead = 1024      // most bytes of a block's header
)

// xzBlocks decodes the blocks of one stream (.xz file format 1.2, section 2.1), two at a time. All of them say both
// their sizes in their headers, as those of xz -T do. io.EOF is the end of the stream behind its footer.
type xzBlocks struct {
	src    *bufio.Reader
	dict   uint32
	header []byte // of the stream
	check  int64  // bytes of a block's check

	records []xzRecord
	queue   []*xzJob
	end     error // what comes behind the queue
	err     error // sticky
	quit    chan struct{}
	wait    sync.WaitGroup
	pieces  chan []byte     // to decode into; nil is one to make
	spare   chan []byte     // of packed data, to use again
	readers chan *xz.Reader // with their dictionaries, to use again
}

// xzRecord is what the index says of a block.
type xzRecord struct{ unpadded, size uint64 }

// xzJob is one block under way.
type xzJob struct {
	in    xzInput
	tail  []byte      // behind in
	out   chan []byte // closed behind the last piece; err is set by then
	err   error
	piece []byte // being read
	taken int    // bytes of it
}

// newXZBlocks begins a stream of which head, as much as is there, was peeked; nil is a stream to decode otherwise.
func newXZBlocks(src *bufio.Reader, head []byte, dict uint32) *xzBlocks {
	if len(head) < xzHeader+1 || head[7]&0xf0 != 0 {
		return nil
	}
	if _, _, err := parseXZBlock(head[xzHeader:]); err != nil {
		return nil
	}
	x := &xzBlocks{src: src, dict: dict, header: bytes.Clone(head[:xzHeader]), quit: make(chan struct{}), pieces: make(chan []byte, xzPieces), spare: make(chan []byte, xzPacked/xzPiece), readers: make(chan *xz.Reader, 2)}
	for range xzPieces {
		x.pieces <- nil
	}
	if id := head[7]; id > 0 {
		x.check = 4 << ((id - 1) / 3)
	}
	_, _ = src.Discard(xzHeader)
	return x
}

// Read implements io.Reader.
func (x *xzBlocks) Read(p []byte) (int, error) {
	for x.err == nil {
		x.fill()
		if len(x.queue) == 0 {
			x.err = x.end
			break
		}
		job := x.queue[0]
		if job.taken == len(job.piece) {
			if job.piece != nil {
				x.pieces <- job.piece[:xzPiece]
			}
			if job.piece = <-job.out; job.piece == nil {
				x.err, x.queue = job.err, x.queue[1:]
				continue
			}
			job.taken = 0
		}
		n := copy(p, job.piece[job.taken:])
		job.taken += n
		return n, nil
	}
	return 0, x.err
}

// fill starts blocks until two are under way, or something else comes.
func (x *xzBlocks) fill() {
	for len(x.queue) < 2 && x.end == nil {
		room := int64(math.MaxInt64)
		if len(x.queue) > 0 {
			room = xzPacked - x.queue[0].in.size
		}
		var job *xzJob
		if job, x.end = x.next(room); job == nil {
			break
		}
		x.queue = append(x.queue, job)
		x.wait.Go(func() { x.decode(job) })
	}
}

// next reads a block, or the index and the footer, behind which the error is io.EOF. A block that is longer than room stays
// where it is: then both results are nil.
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
	r, padded, err := parseXZBlock(head)
	if err != nil {
		return nil, err
	}
	if padded > room {
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

// errXZSizes is a block that does not say its sizes, or is too long.
var errXZSizes = errors.New("a block does not say both its sizes, or is longer than the first ones")

// parseXZBlock reads the sizes in a block's header (section 3.1): the record, without the check, and the bytes of header
// and data with their padding. The decoder checks all else.
func parseXZBlock(head []byte) (r xzRecord, padded int64, err error) {
	if len(head) < 2 || head[0] == 0 || head[1]&0xc0 != 0xc0 {
		return r, 0, errXZSizes
	}
	size := (int64(head[0]) + 1) * 4
	packed, n := binary.Uvarint(head[2:min(len(head), 11)])
	if n <= 0 || packed == 0 || packed > maxXZBlock {
		return r, 0, errXZSizes
	}
	whole, m := binary.Uvarint(head[2+n : min(len(head), 11+n)])
	if m <= 0 || whole > maxXZBlock {
		return r, 0, errXZSizes
	}
	return xzRecord{uint64(size) + packed, whole}, size + (int64(packed)+3)&^3, nil
}

// tail is the index and the footer of a stream of one block.
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

// errXZClosed ends a block that nobody reads any more.
var errXZClosed = errors.New("closed")

// decode decodes a block as a stream of its own.
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

// newPiece waits for a buffer to decode into; nil is the end of the file's reading.
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

// readIndex compares the index with the blocks, and reads the footer (sections 4 and 2.1.2).
func (x *xzBlocks) readIndex() error {
	sum := crc32.NewIEEE()
	in := &xzIndex{src: x.src, sum: sum}
	in.number() // the indicator
	if n := in.number(); in.err == nil && n != uint64(len(x.records)) {
		return fmt.Errorf("corrupt: the index has %d blocks, the stream %d", n, len(x.records))
	}
	for i, r := range x.records {
		if got := (xzRecord{in.number(), in.number()}); in.err == nil && got != r {
			return fmt.Errorf("corrupt: the index says of block %d that it has %d bytes, %d decoded; it has %d, %d", i, got.unpadded, got.size, r.unpadded, r.size)
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
		return errors.New("corrupt: the checksum of the index or of the footer is wrong")
	case in.n > math.MaxUint32, uint64(binary.LittleEndian.Uint32(footer[4:]))*4 != in.n, !bytes.Equal(footer[8:10], x.header[6:8]), string(footer[10:]) != "YZ":
		return errors.New("corrupt: the footer does not fit the stream")
	}
	return nil
}

// xzIndex reads the bytes of an index and sums them up.
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

// number reads a multibyte integer (section 1.2), of at most 9 bytes and in its shortest form.
func (i *xzIndex) number() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := i.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 && i.err == nil {
				i.err = errors.New("corrupt: a number of the index is longer than it has to be")
			}
			return v
		}
		if shift == 56 {
			i.err = errors.New("corrupt: a number of the index is too long")
			return 0
		}
	}
}

// close ends what is under way.
func (x *xzBlocks) close() {
	close(x.quit)
	x.wait.Wait()
}
