package source

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/therootcompany/xz"
	"golang.org/x/sys/unix"
)

// xzMagic begins a stream (section 2.1.1.1).
const xzMagic = "\xfd7zXZ\x00"

// openXZ decodes the streams of an xz file (.xz file format 1.2), including stream padding. It supports the filters delta and BCJ
// for x86, PowerPC, IA-64, ARM, ARM-Thumb and SPARC, but not for ARM64 and RISC-V. With several cores and enough memory, short
// blocks with sizes in their headers, as xz -T writes them, are decoded two at a time. Which files are accepted does not depend
// on cores and memory.
func openXZ(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	z := &xzFile{src: r, limits: l, parallel: runtime.GOMAXPROCS(0) > 1 && totalMemory() >= parallelXZMemory}
	z.err = z.begin(true)
	return z, z.close, z.err
}

// parallelXZMemory is the memory that a machine needs for parallel decoding, which takes 64 MiB.
const parallelXZMemory = 512 << 20

func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// xzFile decodes one stream after another.
type xzFile struct {
	src      *bufio.Reader
	limits   Limits
	parallel bool
	blocks   *xzBlocks // of the stream being read, or nil
	err      error     // sticky
}

// begin moves to the next stream. It returns io.EOF at the end of the file. first is false after another stream.
func (z *xzFile) begin(first bool) error {
	if !first {
		if err := z.padding(); err != nil {
			return err
		}
	}
	head, err := z.src.Peek(xzHeader)
	switch {
	case len(head) == 0, err != nil && err != io.EOF:
		return err
	case len(head) < xzHeader:
		return fmt.Errorf("the file ends within the header of a stream: %w", io.ErrUnexpectedEOF)
	case string(head[:6]) != xzMagic:
		return errors.New("data after the end of a stream, expected a stream or the end of the file")
	case binary.LittleEndian.Uint32(head[8:]) != crc32.ChecksumIEEE(head[6:8]):
		return errors.New("corrupt: the checksum of a stream header does not match")
	case head[6] != 0 || head[7]&0xf0 != 0:
		return explainXZ(xz.ErrOptions, z.limits.XZDict)
	}
	z.blocks = newXZBlocks(z.src, uint32(z.limits.XZDict), z.parallel)
	return nil
}

// padding skips stream padding: zeros in multiples of four (section 2.2).
func (z *xzFile) padding() error {
	for {
		b, err := z.src.Peek(4)
		switch {
		case len(b) == 0:
			return err
		case b[0] != 0:
			return nil
		case len(b) < 4 || b[1]|b[2]|b[3] != 0:
			if err != nil && err != io.EOF {
				return err
			}
			return fmt.Errorf("corrupt: stream padding is not a multiple of four zeros: %w", io.ErrUnexpectedEOF)
		}
		_, _ = z.src.Discard(4)
	}
}

// Read implements io.Reader.
func (z *xzFile) Read(p []byte) (int, error) {
	for z.err == nil {
		n, err := z.blocks.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if err != io.EOF {
			z.err = explainXZ(err, z.limits.XZDict)
			break
		}
		z.close()
		z.err = z.begin(false)
	}
	return 0, z.err
}

func (z *xzFile) close() {
	if z.blocks != nil {
		z.blocks.close()
		z.blocks = nil
	}
}

func explainXZ(err error, dict int64) error {
	switch {
	case errors.Is(err, xz.ErrMemlimit):
		return &LimitError{What: "xz dictionary", Limit: dict}
	case errors.Is(err, xz.ErrOptions), errors.Is(err, xz.ErrUnsupportedCheck):
		return fmt.Errorf("the filter or check is not supported, or the file is damaged; compress with xz -6: %w", err)
	case errors.Is(err, xz.ErrBuf): // end of the input
		return fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
	}
	return err
}
