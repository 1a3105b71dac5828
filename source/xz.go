package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/therootcompany/xz"
	"golang.org/x/sys/unix"
)

// openXZ reads the streams of an xz file (the .xz file format 1.2), with stream padding. BCJ filters of x86,
// PowerPC, IA-64, ARM, ARM-Thumb and SPARC and delta are known; that of ARM64 and RISC-V is not. Where the blocks
// are short and say their sizes, and cores and memory are there, two are decoded at a time.
func openXZ(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	z := &xzFile{src: r, limits: l, parallel: runtime.GOMAXPROCS(0) > 1 && totalMemory() >= parallelXZMemory}
	z.err = z.begin(false)
	return z, z.close, z.err
}

// parallelXZMemory is the memory of a machine from which two blocks are decoded at a time: they take 64 MiB.
const parallelXZMemory = 512 << 20

func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// xzFile reads one stream after the other: by blocks, or all that is left with the library.
type xzFile struct {
	src      *bufio.Reader
	limits   Limits
	parallel bool
	blocks   *xzBlocks // of the stream being read, or nil
	rest     *xz.Reader
	err      error // sticky
}

// begin goes to a stream; behind another one, past the padding. io.EOF is the proper end of the file.
func (z *xzFile) begin(behind bool) error {
	if behind {
		if err := z.padding(); err != nil {
			return err
		}
	}
	head, err := z.src.Peek(xzHeader + xzBlockHead)
	if len(head) == 0 || err != nil && err != io.EOF {
		return err
	}
	if z.parallel {
		if z.blocks = newXZBlocks(z.src, head, uint32(z.limits.XZDict)); z.blocks != nil {
			return nil
		}
	}
	if z.rest, err = xz.NewReader(z.src, uint32(z.limits.XZDict)); err != nil {
		return explainXZ(noEOF(err), z.limits.XZDict)
	}
	return nil
}

// padding passes the zeros behind a stream, in fours.
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
			return fmt.Errorf("corrupt: stream padding is not zeros in fours: %w", io.ErrUnexpectedEOF)
		}
		_, _ = z.src.Discard(4)
	}
}

// Read implements io.Reader.
func (z *xzFile) Read(p []byte) (n int, err error) {
	for z.err == nil {
		if z.rest != nil {
			if n, err = z.rest.Read(p); err != io.EOF {
				err = explainXZ(err, z.limits.XZDict)
			}
			z.err = err
			return n, err
		}
		if n, err = z.blocks.Read(p); n > 0 || err == nil {
			return n, nil
		}
		if err != io.EOF {
			z.err = explainXZ(err, z.limits.XZDict)
			break
		}
		z.close()
		z.err = z.begin(true)
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
		return fmt.Errorf("needs a dictionary of more than the %s allowed; compress with xz -6: %w", formatSize(dict), err)
	case errors.Is(err, xz.ErrOptions), errors.Is(err, xz.ErrUnsupportedCheck):
		return fmt.Errorf("uses a filter or a check that is not known here, or is damaged; compress with xz -6: %w", err)
	case errors.Is(err, xz.ErrFormat): // the first header is right, or the codec would not be xz
		return fmt.Errorf("what follows the end of a stream is neither a stream nor the end of the file: %w", err)
	case errors.Is(err, xz.ErrBuf): // input is used up
		return fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
	}
	return err
}
