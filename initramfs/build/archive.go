package build

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
)

// tree holds the records of an archive by path.
type tree map[string]cpio.Record

// dir adds a directory and its parents, which the kernel does not create.
func (t tree) dir(name string) {
	for ; name != "." && name != "/"; name = path.Dir(name) {
		if _, ok := t[name]; ok {
			return
		}
		t[name] = cpio.Directory(name, 0o755)
	}
}

func (t tree) write(w io.Writer, compress string) error {
	out, err := compressor(w, compress)
	if err != nil {
		return err
	}
	records := make([]cpio.Record, 0, len(t))
	for _, r := range t {
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	cpio.MakeAllReproducible(records)
	rw := cpio.Newc.Writer(out)
	if err := cpio.WriteRecords(rw, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(rw); err != nil {
		return err
	}
	return out.Close()
}

// compressor uses one goroutine and a fixed window, so that the output does not depend on the machine. The kernel decodes xz
// only with CRC32 or without a check (Documentation/staging/xz.rst).
func compressor(w io.Writer, how string) (io.WriteCloser, error) {
	switch how {
	case "none":
		return nopCloser{w}, nil
	case "xz":
		return xz.WriterConfig{CheckSum: xz.CRC32, DictCap: 8 << 20}.NewWriter(w)
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	}
	return nil, fmt.Errorf("unknown compression %q, expected zstd, xz or none", how)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
