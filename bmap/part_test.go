package bmap_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"updater/bmap"
)

// The map of a part is right for the part's bytes, however its borders cut the ranges.
func TestPart(t *testing.T) {
	const size = 1<<20 + 1000
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range [][2]int{{0, 20 << 10}, {256 << 10, 700 << 10}, {900 << 10, 904 << 10}, {1020 << 10, size}} {
		for i := r[0]; i < r[1]; i++ {
			data[i] = byte(rng.Uint32()) | 1
		}
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := bmap.Create(context.Background(), f, bmap.CreateOptions{MaxRange: 128 << 10,
		Update: &bmap.Update{Version: "1", ImageChecksum: hex.EncodeToString(make([]byte, 32))}})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	sum := func(_ int, s bmap.Span) (string, error) {
		asked++
		d := sha256.Sum256(data[s.Offset : s.Offset+s.Length])
		return hex.EncodeToString(d[:]), nil
	}
	for _, c := range []struct{ offset, length int64 }{{0, size}, {4096, 8192}, {256 << 10, 512 << 10}, {300 << 10, 404 << 10},
		{1016 << 10, size - 1016<<10}, {24 << 10, 4096}, {260 << 10, 4096}} {
		part, err := m.Part(c.offset, c.length, sum)
		if err != nil {
			t.Errorf("Part(%d, %d) = %v", c.offset, c.length, err)
			continue
		}
		again, err := bmap.Parse(part.Encode())
		if err != nil {
			t.Errorf("Part(%d, %d) is no valid map: %v", c.offset, c.length, err)
			continue
		}
		if u := again.Update(); u == nil || u.Version != "1" || u.ImageChecksum != "" {
			t.Errorf("Part(%d, %d) has the update element %+v", c.offset, c.length, u)
		}
		if err := bmap.Verify(t.Context(), again, bytes.NewReader(data[c.offset:c.offset+c.length]), nil); err != nil {
			t.Errorf("Part(%d, %d) does not match the bytes: %v", c.offset, c.length, err)
		}
		var mapped int64
		for _, r := range m.Ranges() {
			mapped += max(0, min(r.Offset+r.Length, c.offset+c.length)-max(r.Offset, c.offset))
		}
		if part.ImageSize() != c.length || part.MappedBytes() != mapped {
			t.Errorf("Part(%d, %d) has %d bytes, %d mapped; want %d mapped", c.offset, c.length, part.ImageSize(), part.MappedBytes(), mapped)
		}
	}
	if asked == 0 {
		t.Error("no border cut a range")
	}
	for _, c := range []struct{ offset, length int64 }{{-4096, 8192}, {0, 0}, {0, size + 1}, {100, 4096}, {0, 100}, {4096, 1 << 62}} {
		if _, err := m.Part(c.offset, c.length, sum); err == nil {
			t.Errorf("Part(%d, %d) succeeded", c.offset, c.length)
		}
	}
	refused := errors.New("refused")
	if _, err := m.Part(4096, 8192, func(int, bmap.Span) (string, error) { return "", refused }); !errors.Is(err, refused) {
		t.Errorf("a checksum that cannot be had: %v", err)
	}
}
