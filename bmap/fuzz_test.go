package bmap_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strconv"
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
	f.Add(seal(strings.Replace(valid, "<BlockMap>", "<x a='&#65;' b=\"c\"><![CDATA[]]>&lt;<!-- --><y/></x><BlockMap>", 1)))
	f.Add([]byte("<!DOCTYPE a [<!ENTITY b 'c'>]><bmap/>"))
}

// FuzzParse checks the properties of every map that Parse accepts. Input without the right file checksum is mostly refused there,
// so it is tried a second time with the right checksum.
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
			wantSameXML(t, m, data)
		}
	})
}

// wantSameXML reads an accepted map once more with encoding/xml, which must see the same ranges and the same head.
func wantSameXML(t *testing.T, m *bmap.Map, data []byte) {
	t.Helper()
	var doc struct {
		Version      string `xml:"version,attr"`
		ImageSize    int64
		BlockSize    int64
		MappedBlocks int64 `xml:"MappedBlocksCount"`
		Ranges       []struct {
			SHA1   string `xml:"sha1,attr"`
			Chksum string `xml:"chksum,attr"`
			Blocks string `xml:",chardata"`
		} `xml:"BlockMap>Range"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		if strings.Contains(err.Error(), "invalid XML name") { // its tables are older than Unicode's letters
			return
		}
		t.Fatalf("Parse accepts what encoding/xml does not: %v\n%q", err, data)
	}
	if doc.Version != m.Version() || doc.ImageSize != m.ImageSize() || doc.BlockSize != m.BlockSize() || doc.MappedBlocks != m.MappedBlocks() ||
		len(doc.Ranges) != m.Len() {
		t.Fatalf("encoding/xml reads %+v of\n%q", doc, data)
	}
	for i, r := range m.Ranges() {
		theirs := doc.Ranges[i]
		first, last, isPair := strings.Cut(strings.Join(strings.Fields(theirs.Blocks), ""), "-")
		if !isPair {
			last = first
		}
		if fmt.Sprint(r.First) != first || fmt.Sprint(r.Last) != last || r.Checksum != strings.ToLower(theirs.SHA1+theirs.Chksum) {
			t.Fatalf("range %d is %+v, encoding/xml reads %+v", i, r, theirs)
		}
	}
}

// FuzzRoundTrip checks that an encoded map is read back as the same map.
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
		t.Fatalf("%d blocks, %d bytes, last block %d; the map says %d, %d, %d blocks", blocks, bytes, last, m.MappedBlocks(), m.MappedBytes(),
			m.BlocksCount())
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

// TestSeeds counts the seeds that are checked in, and wants most of them to be maps: a target that only ever sees
// refusals finds nothing behind them.
func TestSeeds(t *testing.T) {
	for _, target := range []string{"FuzzParse", "FuzzRoundTrip"} {
		names, err := filepath.Glob("testdata/fuzz/" + target + "/*")
		if err != nil {
			t.Fatal(err)
		}
		accepted := 0
		for _, name := range names {
			_, literal, _ := strings.Cut(string(readFile(t, name)), "[]byte(")
			text, err := strconv.Unquote(strings.TrimSuffix(strings.TrimSpace(literal), ")"))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := bmap.Parse(reseal([]byte(text))); err == nil {
				accepted++
			}
		}
		if len(names) < 13 || accepted < 8 {
			t.Errorf("%s has %d seeds, of which %d are maps; want at least 13 and 8", target, len(names), accepted)
		}
	}
}
