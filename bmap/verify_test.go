package bmap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"updater/bmap"
)

func TestVerify(t *testing.T) {
	path := sparseImage(t, t.TempDir(), 5*mib+100, span(0, 2*mib), span(3*mib, mib), span(5*mib, 100))
	m := create(t, path, bmap.CreateOptions{MaxRange: 256 * kib})
	good := readFile(t, path)
	flip := func(at ...int) func([]byte) []byte {
		return func(b []byte) []byte {
			for _, i := range at {
				b[i] ^= 1
			}
			return b
		}
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		bad    []int  // indexes of mismatches
		msg    string // in the error, "" for none
		is     error
	}{
		{"good", flip(), nil, "", nil},
		{"longer, as a device is", func(b []byte) []byte { return append(b, "more"...) }, nil, "", nil},
		{"unmapped byte", flip(2*mib + 5), nil, "", nil},
		{"first byte", flip(0), []int{0}, "range 0 (blocks 0-63): sha256 is ", nil},
		{"last byte of a partial block", flip(5*mib + 99), []int{12}, "range 12 (block 1280): sha256 is ", nil},
		{"three ranges", flip(0, 300*kib, 5*mib), []int{0, 1, 12}, "3 of 13 ranges do not match: range 0 (", nil},
		{"five ranges", flip(0, 300*kib, 600*kib, mib, 5*mib), []int{0, 1, 2, 4, 12}, "; and 2 more", nil},
		{"one byte short", func(b []byte) []byte { return b[:len(b)-1] }, nil, "shorter than the 5242980 bytes", io.ErrUnexpectedEOF},
		{"empty", func([]byte) []byte { return nil }, nil, "shorter than", io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := bmap.Verify(t.Context(), m, bytes.NewReader(tt.change(bytes.Clone(good))), nil)
			if tt.msg == "" {
				if err != nil {
					t.Errorf("Verify = %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.msg) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Verify = %v; want %q", err, tt.msg)
			}
			wantMismatches(t, m, err, tt.bad)
		})
	}
}

func wantMismatches(t *testing.T, m *bmap.Map, err error, want []int) {
	t.Helper()
	var got []*bmap.MismatchError
	if all, ok := errors.AsType[*bmap.MismatchesError](err); ok {
		got = all.Mismatches
	} else if one, ok := errors.AsType[*bmap.MismatchError](err); ok {
		got = append(got, one)
	}
	if len(got) != len(want) {
		t.Fatalf("%d mismatches; want %d", len(got), len(want))
	}
	for i, e := range got {
		if e.Index != want[i] || e.Range != m.Range(want[i]) || e.Type != "sha256" || e.Got == e.Range.Checksum || len(e.Got) != 64 {
			t.Errorf("mismatch %d is %+v; want range %d", i, e, want[i])
		}
	}
}

// failingReader fails at one byte.
type failingReader struct {
	io.ReaderAt
	at  int64
	err error
}

func (r failingReader) ReadAt(b []byte, offset int64) (int, error) {
	if offset <= r.at && r.at < offset+int64(len(b)) {
		return 0, r.err
	}
	return r.ReaderAt.ReadAt(b, offset)
}

func TestVerifyErrors(t *testing.T) {
	path := sparseImage(t, t.TempDir(), 2*mib, span(0, 2*mib))
	m := create(t, path, bmap.CreateOptions{})
	image := bytes.NewReader(readFile(t, path))
	broken := errors.New("broken medium")
	for _, at := range []int64{0, mib + 1, 2*mib - 1} {
		if err := bmap.Verify(t.Context(), m, failingReader{image, at, broken}, nil); !errors.Is(err, broken) {
			t.Errorf("reader failing at byte %d: Verify = %v", at, err)
		}
	}
	steps := 0
	if err := bmap.Verify(t.Context(), m, image, func(done, total int64) { steps++ }); err != nil {
		t.Fatal(err)
	}
	for at := range steps + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		if at == 0 {
			cancel()
		}
		err := bmap.Verify(ctx, m, image, func(int64, int64) {
			if seen++; seen == at {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at step %d: Verify = %v", at, err)
		}
		cancel()
	}
	bare := mustParse(t, seal(strings.Replace(valid, ` chksum="`+digestB+`"`, "", 1)))
	err := bmap.Verify(t.Context(), bare, imageFor(16000), nil)
	if !errors.Is(err, bmap.ErrNoChecksum) || !strings.HasPrefix(err.Error(), "range 1 (block 3): ") {
		t.Errorf("a range without checksum: Verify = %v", err)
	}
}
