package verify_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"updater/verify"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestNewReader(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	size := int64(len(data))
	sha512Sum := sha512.Sum512(data)
	broken := errors.New("broken")
	object := "range 17 (blocks 4096-8191)"
	mismatch := object + ": sha256 is " + digest(data) + ", bmap says " + digest(nil)

	tests := []struct {
		name string
		in   io.Reader
		hash hash.Hash // default sha256
		want string    // hex digest, default that of data
		size int64     // default that of data; -1 = 0
		err  string    // part of the message; empty: the data comes through
		is   error
	}{
		{name: "good", in: bytes.NewReader(data)},
		{name: "one byte at a time", in: iotest.OneByteReader(bytes.NewReader(data))},
		{name: "half of what is asked", in: iotest.HalfReader(bytes.NewReader(data))},
		{name: "data and EOF together", in: iotest.DataErrReader(bytes.NewReader(data))},
		{name: "sha512", in: bytes.NewReader(data), hash: sha512.New(), want: hex.EncodeToString(sha512Sum[:])},
		{name: "longer input", in: io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken))},
		{name: "nothing", in: iotest.ErrReader(broken), want: digest(nil), size: -1},
		{name: "nothing, wrong digest", in: bytes.NewReader(nil), size: -1, err: "bmap says"},
		{name: "wrong digest", in: bytes.NewReader(data), want: digest(nil), err: mismatch},
		{name: "wrong digest, one byte at a time", in: iotest.OneByteReader(bytes.NewReader(data)), want: digest(nil), err: mismatch},
		{name: "wrong digest, data and EOF together", in: iotest.DataErrReader(bytes.NewReader(data)), want: digest(nil), err: mismatch},
		{name: "short", in: bytes.NewReader(data[:7000]), err: object + ": input ends at byte 7000 of 10000", is: io.ErrUnexpectedEOF},
		{name: "short, data and EOF together", in: iotest.DataErrReader(bytes.NewReader(data[:7000])), err: "byte 7000 of 10000", is: io.ErrUnexpectedEOF},
		{name: "empty", in: bytes.NewReader(nil), err: "byte 0 of 10000", is: io.ErrUnexpectedEOF},
		{name: "read error", in: io.MultiReader(bytes.NewReader(data[:10]), iotest.ErrReader(broken)), err: "at byte 10 of 10000", is: broken},
		{name: "timeout", in: iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))), err: "at byte 1 of", is: iotest.ErrTimeout},
		{name: "no digest", in: bytes.NewReader(data), want: " ", err: "not 64 lower-case hex digits"},
		{name: "upper case", in: bytes.NewReader(data), want: strings.ToUpper(digest(data)), err: "not 64 lower-case hex digits"},
		{name: "digest of another size", in: bytes.NewReader(data), want: hex.EncodeToString(sha512Sum[:]), err: "not 64 lower-case hex digits"},
		{name: "negative size", in: bytes.NewReader(data), size: -2, err: "size -2 is negative"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h, want, n := tc.hash, tc.want, tc.size
			if h == nil {
				h = sha256.New()
			}
			if want == "" {
				want = digest(data)
			}
			switch n {
			case 0:
				n = size
			case -1:
				n = 0
			}
			h.Write([]byte("left over")) // NewReader resets it
			r := verify.NewReader(tc.in, h, want, n, object)
			got, err := io.ReadAll(r)
			if tc.err == "" {
				if err != nil || !bytes.Equal(got, data[:n]) {
					t.Fatalf("ReadAll() = %d bytes, %v; want %d bytes", len(got), err, n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("ReadAll() = %v; want %q", err, tc.err)
			}
			if again, err2 := r.Read(make([]byte, 1)); again != 0 || err2 != err {
				t.Errorf("Read() after an error = %d, %v; want the same error", again, err2)
			}
		})
	}
}

func TestNewReaderContract(t *testing.T) {
	data := bytes.Repeat([]byte("abc"), 100)
	r := verify.NewReader(bytes.NewReader(data), sha256.New(), digest(data), int64(len(data)), "data")
	if err := iotest.TestReader(r, data); err != nil {
		t.Error(err)
	}
}

func TestNewReaderDoesNotReadOn(t *testing.T) {
	in := strings.NewReader("datamore")
	if _, err := io.ReadAll(verify.NewReader(in, sha256.New(), digest([]byte("data")), 4, "data")); err != nil {
		t.Fatal(err)
	}
	if in.Len() != len("more") {
		t.Errorf("%d bytes are left; want 4", in.Len())
	}
}

func TestMismatchError(t *testing.T) {
	_, err := io.ReadAll(verify.NewReader(strings.NewReader("data"), sha256.New(), digest(nil), 4, "range 0"))
	got, ok := errors.AsType[*verify.MismatchError](err)
	if !ok {
		t.Fatalf("error is %T", err)
	}
	want := &verify.MismatchError{Object: "range 0", Length: 4, Type: "sha256", Got: digest([]byte("data")), Want: digest(nil)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error differs (-want +got):\n%s", diff)
	}
}
