package bmap_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"updater/bmap"
)

func TestParse(t *testing.T) {
	mustParse(t, seal("\ufeff"+valid)) // as some editors begin a file
	m := mustParse(t, seal(valid))
	got := fmt.Sprintln(m.Version(), m.ImageSize(), m.BlockSize(), m.BlocksCount(), m.MappedBlocks(), m.MappedBytes(), m.ChecksumType(), m.Len(),
		m.NewHash().Size())
	if want := "2.0 16000 4096 4 3 11904 sha256 2 32\n"; got != want {
		t.Errorf("map is %q; want %q", got, want)
	}
	wantRanges := []bmap.Range{
		{First: 0, Last: 1, Offset: 0, Length: 8192, Checksum: digestA},
		{First: 3, Last: 3, Offset: 12288, Length: 3712, Checksum: digestB},
	}
	for i, r := range m.Ranges() {
		if diff := cmp.Diff(wantRanges[i], r); diff != "" {
			t.Errorf("range %d (-want +got):\n%s", i, diff)
		}
	}
	wantUpdate := &bmap.Update{Product: "acme-gw", RollbackIndex: 17}
	if diff := cmp.Diff(wantUpdate, m.Update()); diff != "" {
		t.Errorf("update (-want +got):\n%s", diff)
	}
	m.Update().Product = "other"
	if m.Update().Product != "acme-gw" {
		t.Error("a caller changed the map through Update")
	}
}

func TestParseVersions(t *testing.T) {
	sha1Attr := strings.Repeat("c3", 20)
	old := func(version, head, tail string) string {
		return `<bmap version="` + version + `"><ImageSize>4097</ImageSize><BlockSize>4096</BlockSize><BlocksCount>2</BlocksCount>` +
			head + `<BlockMap><Range sha1="` + sha1Attr + `">0 - 1</Range></BlockMap>` + tail + `</bmap>`
	}
	relabel := func(version string) string { return strings.Replace(valid, `"2.0"`, `"`+version+`"`, 1) }
	tests := []struct {
		name, version, hash string
		data                []byte
	}{
		{"1.2 has its mapped count at the end and no file checksum", "1.2", "sha1", []byte(old("1.2", "", "<MappedBlocksCount>2</MappedBlocksCount>"))},
		{"1.3", "1.3", "sha1", sealSHA1(old("1.3", "<MappedBlocksCount>2</MappedBlocksCount><BmapFileSHA1>"+sumMark+"</BmapFileSHA1>", ""))},
		{"1.4", "1.4", "sha256", seal(relabel("1.4"))},
		{"2.0", "2.0", "sha256", seal(valid)},
		{"2.7", "2.7", "sha256", seal(relabel("2.7"))},
		{"2.10", "2.10", "sha256", seal(relabel("2.10"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mustParse(t, tt.data)
			if m.Version() != tt.version || m.ChecksumType() != tt.hash {
				t.Errorf("got version %s, %s; want %s, %s", m.Version(), m.ChecksumType(), tt.version, tt.hash)
			}
			if m.Range(0).Checksum == "" {
				t.Error("range checksum is lost")
			}
			if again := mustParse(t, m.Encode()); again.ChecksumType() != tt.hash || rangeTexts(again) != rangeTexts(m) {
				t.Errorf("encoded as %s", m.Encode())
			}
		})
	}
	for _, version := range []string{"", "0.9", "1", "1.0", "1.1", "1.5", "1.9", "2", "2.", "2.x", "2.-1", "2.00", "02.0", " 2.0", "2.0.1", "3.0",
		"2.1000", "20"} {
		t.Run("refused "+version, func(t *testing.T) {
			_, err := bmap.Parse(seal(relabel(version)))
			wantSyntaxError(t, err, 3, "bmap", "expected 1.2, 1.3, 1.4 or 2.x")
		})
	}
}

func wantSyntaxError(t *testing.T, err error, line int, element, msg string) {
	t.Helper()
	bad, ok := errors.AsType[*bmap.SyntaxError](err)
	if !ok {
		t.Fatalf("Parse = %v; want a SyntaxError", err)
	}
	if bad.Line != line || bad.Element != element || !strings.Contains(bad.Msg, msg) {
		t.Errorf("Parse = %v; want line %d, element %q, message with %q", err, line, element, msg)
	}
}

// TestParseAccepts lists maps that other tools write and we must read.
func TestParseAccepts(t *testing.T) {
	tests := []struct{ name, old, new string }{
		{"no declaration", `<?xml version="1.0" ?>` + "\n", ""},
		{"CRLF line ends", "\n", "\r\n"},
		{"single quotes", `"2.0"`, `'2.0'`},
		{"no final newline", "</bmap>\n", "</bmap>"},
		{"comment after the root", "</bmap>\n", "</bmap>\n<!-- end -->\n"},
		{"comment between elements", "    <BlockMap>\n", "    <BlockMap><!-- <Range> 9 </Range> -->\n"},
		{"unknown element", "<BlockMap>", "<Future a='b'><Deep>text &amp; more</Deep><E/></Future><BlockMap>"},
		{"unknown element with all of XML", "<BlockMap>", "<x a=\"&#x41;&quot;>\" b = 'é'>&lt;<![CDATA[<&]]]]><!-- > --><größe/></x ><BlockMap>"},
		{"declaration in full", `version="1.0" ?`, `version='1.0' encoding = "UTF-8" standalone="yes"?`},
		{"space in tags", "</BlockMap>\n</bmap>", "</BlockMap  >\n</bmap\n>"},
		{"unknown element among ranges", "<BlockMap>", "<BlockMap><Note> x </Note>"},
		{"values over lines", " 16000 ", "\n16000\n"},
		{"white space around the dash", "0-1", "0 -\t1"},
		{"single block as a pair", "> 3 </R", "> 3-3 </R"},
		{"upper-case range checksum", digestA, strings.ToUpper(digestA)},
		{"range without checksum", ` chksum="` + digestB + `"`, ""},
		{"no range has a checksum", ` chksum=`, ` chksum=`},
		{"head after the block map", "", ""},
		{"no update", "<Product> acme-gw </Product>", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.ReplaceAll(valid, tt.old, tt.new)
			switch tt.name {
			case "no range has a checksum":
				text = strings.NewReplacer(` chksum="`+digestA+`"`, "", ` chksum="`+digestB+`"`, "").Replace(valid)
			case "head after the block map":
				line := "    <ChecksumType> sha256 </ChecksumType>\n"
				text = strings.Replace(strings.Replace(valid, line, "", 1), "</bmap>", line+"</bmap>", 1)
			}
			m := mustParse(t, seal(text))
			if got := rangeTexts(m); got != "0-1 3" {
				t.Errorf("ranges are %s; want 0-1 3", got)
			}
			if again := mustParse(t, m.Encode()); string(again.Encode()) != string(m.Encode()) {
				t.Errorf("encoding twice differs:\n%s\n%s", m.Encode(), again.Encode())
			}
		})
	}
	t.Run("upper-case file checksum", func(t *testing.T) {
		data := string(seal(valid))
		_, rest, _ := strings.Cut(data, "<BmapFileChecksum> ")
		digits := rest[:64]
		mustParse(t, []byte(strings.Replace(data, digits, strings.ToUpper(digits), 1)))
	})
	t.Run("no mapped block", func(t *testing.T) {
		before, rest, _ := strings.Cut(valid, "<BlockMap>")
		_, after, _ := strings.Cut(rest, "</BlockMap>")
		text := before + "<BlockMap></BlockMap>" + after
		m := mustParse(t, seal(strings.Replace(text, "Count> 3 ", "Count> 0 ", 1)))
		if m.Len() != 0 || m.MappedBytes() != 0 {
			t.Errorf("got %d ranges, %d bytes", m.Len(), m.MappedBytes())
		}
	})
}

func TestGaps(t *testing.T) {
	tests := []struct {
		name, ranges string
		mapped       int
		want         []bmap.Span
	}{
		{"middle", "0-1 3", 3, []bmap.Span{{Offset: 8192, Length: 4096}}},
		{"ends", "1-2", 2, []bmap.Span{{Offset: 0, Length: 4096}, {Offset: 12288, Length: 3712}}},
		{"touching ranges", "0 1 2-3", 4, nil},
		{"all", "", 0, []bmap.Span{{Offset: 0, Length: 16000}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, rest, _ := strings.Cut(valid, "<BlockMap>")
			_, after, _ := strings.Cut(rest, "</BlockMap>")
			text := before + "<BlockMap>"
			for r := range strings.FieldsSeq(tt.ranges) {
				text += "<Range>" + r + "</Range>"
			}
			text = strings.Replace(text+"</BlockMap>"+after, "Count> 3 ", fmt.Sprintf("Count> %d ", tt.mapped), 1)
			m := mustParse(t, seal(text))
			var got []bmap.Span
			total := m.MappedBytes()
			for s := range m.Gaps() {
				got = append(got, s)
				total += s.Length
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if total != m.ImageSize() {
				t.Errorf("gaps and ranges are %d bytes; want %d", total, m.ImageSize())
			}
			for range m.Gaps() { // an early stop must not panic
				break
			}
			for range m.Ranges() {
				break
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	_, err := bmap.Parse(make([]byte, bmap.MaxFileSize+1))
	wantSyntaxError(t, err, 0, "", "expected at most 67108864")
	if got, want := err.Error(), "bmap: file has 67108865 bytes, expected at most 67108864"; got != want {
		t.Errorf("error is %q; want %q", got, want)
	}
	var b strings.Builder
	b.WriteString(valid[:strings.Index(valid, "<BlockMap>")] + "<BlockMap>")
	for i := range bmap.MaxRanges + 1 {
		fmt.Fprintf(&b, "<Range>%d</Range>\n", i)
	}
	_, err = bmap.Parse([]byte(b.String() + "</BlockMap></bmap>"))
	wantSyntaxError(t, err, 14+bmap.MaxRanges, "Range", "is one too many, expected at most 1048576 ranges")
	deep := strings.Replace(valid, "<BlockMap>", strings.Repeat("<a>", 100)+strings.Repeat("</a>", 100)+"<BlockMap>", 1)
	_, err = bmap.Parse(seal(deep))
	wantSyntaxError(t, err, 14, "a", "nested deeper")
}
