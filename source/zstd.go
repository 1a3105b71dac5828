package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdMagics are those of a frame, and of the 16 skippable frames, with which a file of pzstd begins.
func zstdMagics() []string {
	magics := []string{"\x28\xb5\x2f\xfd"}
	for i := range 16 {
		magics = append(magics, string([]byte{0x50 + byte(i), 0x2a, 0x4d, 0x18}))
	}
	return magics
}

// openZstd reads the frames of a zstd file (RFC 8878). It starts no goroutine.
func openZstd(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(l.ZstdWindow)))
	if err != nil {
		return nil, nil, fmt.Errorf("a window of %d bytes: %w", l.ZstdWindow, err)
	}
	return explained(z, func(err error) error {
		switch {
		case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return fmt.Errorf("needs a window of more than the %s allowed; compress without --long and --ultra: %w", formatSize(l.ZstdWindow), err)
		case errors.Is(err, zstd.ErrMagicMismatch):
			return fmt.Errorf("what follows the end of a frame is neither a frame nor the end of the file: %w", err)
		}
		return err
	}), z.Close, nil
}

// formatSize writes a power of two as people do.
func formatSize(bytes int64) string {
	if bytes >= 1<<20 && bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
