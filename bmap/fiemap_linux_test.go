package bmap

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFiemapOddities covers answers that the file systems at hand do not give: see Documentation/filesystems/fiemap.rst.
func TestFiemapOddities(t *testing.T) {
	const last, delalloc, inline, unwritten = 1, 4, 0x200, 0x800
	type answer []fiemapExtent
	extent := func(logical, length uint64, flags uint32) fiemapExtent {
		return fiemapExtent{logical: logical, length: length, flags: flags}
	}
	tests := []struct {
		name    string
		answers []answer
		size    int64
		asHole  bool
		want    []blockRange
		err     string
	}{
		{"none", nil, 1 << 20, false, nil, ""},
		{"an extent that begins before the start", []answer{{extent(0, 8192, 0)}, {extent(4096, 8192, last)}}, 1 << 20, false, []blockRange{{0, 2}}, ""},
		{"past the end of the file", []answer{{extent(8192, 1<<30, last)}}, 16000, false, []blockRange{{2, 3}}, ""},
		{"wholly past the end", []answer{{extent(0, 1, 0), extent(1<<30, 4096, last)}}, 4096, false, []blockRange{{0, 0}}, ""},
		{"LAST on each window", []answer{{extent(0, 4096, last)}, {extent(12288, 4096, last)}}, 1 << 20, false, []blockRange{{0, 0}, {3, 3}}, ""},
		{"not aligned", []answer{{extent(0, 90, inline|last)}}, 5000, false, []blockRange{{0, 0}}, ""},
		{"unsorted and overlapping", []answer{{extent(8192, 4096, 0), extent(0, 4096, 0), extent(4096, 8192, delalloc)}}, 1 << 20, false,
			[]blockRange{{0, 2}}, ""},
		{"unwritten is data", []answer{{extent(0, 4096, unwritten), extent(8192, 4096, last)}}, 1 << 20, false, []blockRange{{0, 0}, {2, 2}}, ""},
		{"unwritten is a hole", []answer{{extent(0, 4096, unwritten), extent(8192, 4096, last)}}, 1 << 20, true, []blockRange{{2, 2}}, ""},
		{"the same again and again", []answer{{extent(0, 4096, 0)}, {extent(0, 4096, 0)}}, 1 << 20, false, nil, "no extent past byte 4096"},
		{"no length", []answer{{extent(4096, 0, 0)}}, 1 << 20, false, nil, "an extent of 0 bytes"},
		{"overflow", []answer{{extent(1<<63, 1<<63, 0)}}, 1 << 20, false, nil, "an extent of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answers := tt.answers
			call := func(r *fiemapRequest) error {
				if r.flags != fiemapSync || r.mapped != 0 || r.length != uint64(tt.size)-r.start {
					t.Errorf("asked %d bytes from %d with flags %#x", r.length, r.start, r.flags)
				}
				if len(answers) == 0 {
					return nil
				}
				r.mapped = uint32(copy(r.extents[:], answers[0]))
				answers = answers[1:]
				return nil
			}
			spans, err := fiemap(t.Context(), call, tt.size, tt.asHole)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("fiemap = %v, %v; want %q", spans, err, tt.err)
				}
				return
			}
			if got := toBlocks(spans, tt.size, 4096); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("blocks are %v, %v; want %v", got, err, tt.want)
			}
		})
	}
	for _, cause := range []error{unix.EIO, unix.EPERM, errNoExtents} {
		if _, err := fiemap(t.Context(), func(*fiemapRequest) error { return cause }, 1, false); !errors.Is(err, cause) {
			t.Errorf("fiemap with %v = %v", cause, err)
		}
	}
}
