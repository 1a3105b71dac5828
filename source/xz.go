package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/therootcompany/xz"
)

// openXZ reads the streams of an xz file (the .xz file format 1.2), with stream padding. BCJ filters of x86,
// PowerPC, IA-64, ARM, ARM-Thumb and SPARC and delta are known; that of ARM64 and RISC-V is not.
func openXZ(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	explain := func(err error) error { return explainXZ(err, l.XZDict) }
	z, err := xz.NewReader(r, uint32(l.XZDict))
	if err != nil {
		return nil, nil, explain(noEOF(err))
	}
	return explained(z, explain), nil, nil
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
