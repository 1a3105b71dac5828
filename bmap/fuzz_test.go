package bmap_test

import (
	"bytes"
	"strings"
	"testing"

	"updater/bmap"
)

// addSeeds adds maps of every version and some that break one rule. testdata/fuzz holds more.
func addSeeds(f *testing.F) {
	f.Add(seal(valid))
	for _, version := range []string{"1.2", "1.3", "1.4", "2.1", "3.0"} {
		f.Add(seal(strings.Replace(valid, `"2.0"`, `"`+version+`"`, 1)))
	}
	f.Add([]byte(`<bmap version="1.2"><ImageSize>4097</ImageSize><BlockSize>4096</BlockSize><BlocksCount>2</BlocksCount>` +
		`<BlockMap><Range sha1="` + digestA[:40] + `">0</Range><Range> 1 </Range></BlockMap><MappedBlocksCount>2</MappedBlocksCount></bmap>`))
	f.Add([]byte("<bmap version='2.0'><a><b/></a><BlockMap/></bmap>"))
	f.Add([]byte("<!DOCTYPE a [<!ENTITY b 'c'>]><bmap/>"))
}

// FuzzParse checks what holds of any map that Parse accepts. Input without the right file checksum is mostly refused
// there, so it is tried a second time with the checksum put right.
func FuzzParse(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, reseal(data)} {
			m, err := bmap.Parse(data)
			if err != nil {
				if m != nil || !strings.HasPrefix(err.Error(), "bmap") {
					t.Fatalf("Parse = %v, %v", m, err)
				}
				continue
			}
			wantConsistent(t, m)
		}
	})
}

// FuzzRoundTrip checks that what we write of a map is the same map.
func FuzzRoundTrip(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := bmap.Parse(reseal(data))
		if err != nil {
			return
		}
		again := mustParse(t, m.Encode())
		if !bytes.Equal(m.Encode(), again.Encode()) || m.Len() != again.Len() || m.ImageSize() != again.ImageSize() ||
			m.BlockSize() != again.BlockSize() || m.ChecksumType() != again.ChecksumType() {
			t.Fatalf("%s\nbecame\n%s", m.Encode(), again.Encode())
		}
		for i, r := range m.Ranges() {
			if again.Range(i) != r {
				t.Fatalf("range %d was %+v, became %+v", i, r, again.Range(i))
			}
		}
	})
}

// reseal replaces the digits of a sha256 file checksum by the right ones.
func reseal(data []byte) []byte {
	const start = "<BmapFileChecksum>"
	head, rest, ok := strings.Cut(string(data), start)
	old, tail, closed := strings.Cut(rest, "</BmapFileChecksum>")
	if !ok || !closed || len(strings.TrimSpace(old)) != 64 || strings.Contains(head, sumMark) {
		return data
	}
	return seal(head + start + strings.Replace(old, strings.TrimSpace(old), sumMark, 1) + "</BmapFileChecksum>" + tail)
}

func wantConsistent(t *testing.T, m *bmap.Map) {
	t.Helper()
	blocks, bytes, last := int64(0), int64(0), int64(-1)
	for i, r := range m.Ranges() {
		if r.First <= last || r.Last < r.First || r.Offset != r.First*m.BlockSize() || r.Length < 1 || r.Offset+r.Length > m.ImageSize() {
			t.Fatalf("range %d is %+v after block %d in an image of %d bytes", i, r, last, m.ImageSize())
		}
		if r.Checksum != "" && len(r.Checksum) != 2*m.NewHash().Size() {
			t.Fatalf("range %d has a checksum of %d digits", i, len(r.Checksum))
		}
		blocks, bytes, last = blocks+r.Last-r.First+1, bytes+r.Length, r.Last
	}
	if blocks != m.MappedBlocks() || bytes != m.MappedBytes() || last >= m.BlocksCount() {
		t.Fatalf("%d blocks, %d bytes, last block %d; the map says %d, %d, %d blocks", blocks, bytes, last, m.MappedBlocks(), m.MappedBytes(), m.BlocksCount())
	}
	end := int64(0)
	for s := range m.Gaps() {
		if s.Length < 1 || s.Offset < end || s.Offset+s.Length > m.ImageSize() {
			t.Fatalf("gap %+v after byte %d", s, end)
		}
		end, bytes = s.Offset+s.Length, bytes+s.Length
	}
	if bytes != m.ImageSize() {
		t.Fatalf("ranges and gaps are %d bytes of %d", bytes, m.ImageSize())
	}
}
