package bmap_test

import (
	"strings"
	"testing"

	"updater/bmap"
)

// TestParseRefuses mutates a valid file, one fault at a time, and puts the file checksum right again, so that the intended check
// fires. The numbered lines are those of valid.
func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name     string
		old, new string // first occurrence
		line     int
		element  string
		msg      string
	}{
		// XML
		{"empty file", valid, "", 1, "", "file ends"},
		{"text instead of XML", valid, "hello", 1, "", `text "hello"`},
		{"two byte-order marks", "<?xml", "\ufeff\ufeff<?xml", 1, "", "text"},
		{"NUL byte", "16000", "16\x00000", 4, "", "byte 0x00"},
		{"broken UTF-8 in a comment", "a comment", "a \xff", 2, "", "byte 0xff"},
		{"other encoding", `version="1.0" ?`, `version="1.0" encoding="latin1" ?`, 1, "", "not well-formed XML"},
		{"declaration not at the start", "<?xml", "\n<?xml", 2, "", "processing instruction"},
		{"processing instruction", "<BlockMap>", "<?php x ?><BlockMap>", 14, "", "processing instruction <?php"},
		{"DOCTYPE", "<!-- a comment -->", "<!DOCTYPE bmap>", 2, "", "DOCTYPE"},
		{"DOCTYPE with an entity", "<!-- a comment -->", `<!DOCTYPE bmap [<!ENTITY a "1">]>`, 2, "", "DOCTYPE"},
		{"undefined entity", "16000", "&size;", 4, "", "not well-formed"},
		{"cut off", "</BlockMap>\n</bmap>", "", 18, "BlockMap", "cut off"},
		{"wrong end tag", "</BlockSize>", "</ImageSize>", 5, "BlockSize", "ends with </ImageSize>"},
		{"attribute without quotes", `"2.0"`, `2.0`, 3, "", "not well-formed"},
		{"attribute twice", `version="2.0"`, `version="2.0" version="1.2"`, 3, "bmap", "attribute version twice"},
		{"name-space prefix", "<BlockSize> 4096 </BlockSize>", "<x:BlockSize> 4096 </x:BlockSize>", 5, "BlockSize", "prefix"},
		{"name space", `version="2.0"`, `xmlns="urn:x" version="2.0"`, 3, "bmap", "name-space attribute"},
		{"text between elements", "    <BlockMap>", "junk<BlockMap>", 14, "bmap", `text "junk"`},
		{"text between ranges", "    </BlockMap>", "junk</BlockMap>", 17, "BlockMap", `text "junk"`},
		{"text after the root", "</bmap>\n", "</bmap>\njunk", 19, "", "text"},
		{"second root", "</bmap>\n", "</bmap>\n<bmap version='2.0'/>", 19, "bmap", "after the end"},
		{"BOM-less UTF-16 is no UTF-8", "a comment", "a \xd8\x00", 2, "", "is not UTF-8"},
		{"surrogate", "a comment", "a \xed\xa0\x80", 2, "", "is not UTF-8"},
		{"not a character", "a comment", "a \uffff", 2, "", "is not UTF-8"},
		{"XML 1.1", `<?xml version="1.0" ?>`, `<?xml version="1.1" ?>`, 1, "", "expected version 1.0"},
		{"declaration without a version", `<?xml version="1.0" ?>`, `<?xml encoding="utf-8"?>`, 1, "", "XML declaration"},
		{"declaration with more", `version="1.0" ?`, `version="1.0" more="x" ?`, 1, "", "XML declaration"},
		{"empty instruction", "<?xml version=\"1.0\" ?>", "<?>", 1, "", "processing instruction without ?>"},
		{"declaration not closed", `version="1.0" ?>`, `version="1.0">`, 1, "", "processing instruction without ?>"},
		{"comment not closed", "a comment -->", "a comment", 2, "", "comment without -->"},
		{"dashes in a comment", "a comment", "a -- comment", 2, "", "with -- in it"},
		{"attribute not closed", `"2.0"`, `"2.0`, 3, "", "without its closing quote"},
		{"attribute without a value", `version="2.0"`, `version`, 3, "", "expected white space before it and = behind it"},
		{"attributes not apart", `version="2.0"`, `version="2.0"x="y"`, 3, "", "expected white space before it"},
		{"less-than in an attribute", `"2.0"`, `"<2.0"`, 3, "", "without its closing quote"},
		{"entity in the version", `"2.0"`, `"2&#46;0"`, 3, "bmap", "entity in attribute version"},
		{"entity in a checksum", digestB, "&#98;" + digestB[1:], 16, "Range", "entity in attribute chksum"},
		{"bare ampersand", "16000", "16000 &", 4, "", "entity &"},
		{"reference to NUL", "16000", "&#0;16000", 4, "", "entity &#0;"},
		{"reference past Unicode", "16000", "&#x110000;", 4, "", "entity &#x110000;"},
		{"reference to a surrogate", "16000", "&#xd800;", 4, "", "entity &#xd800;"},
		{"end of CDATA in text", "16000", "16000]]>", 4, "", "outside a CDATA section"},
		{"CDATA not closed", "<BlockMap>", "<x><![CDATA[</x><BlockMap>", 14, "", "CDATA section without ]]>"},
		{"CDATA between elements", "<BlockMap>", "<![CDATA[x]]><BlockMap>", 14, "bmap", "between elements"},
		{"tag without a name", "<BlockMap>", "< BlockMap>", 14, "", "tag"},
		{"tag that starts with a digit", "<BlockMap>", "<1/><BlockMap>", 14, "", "tag"},
		{"tag not closed", "<BlockMap>", "<BlockMap <Range>", 14, "", "tag"},
		{"end tag with an attribute", "</bmap>", "</bmap x='y'>", 18, "", "end tag"},
		{"end tag of an unknown element", "<BlockMap>", "<a><b></a></b><BlockMap>", 14, "b", "ends with </a>"},
		{"element directive", "<BlockMap>", "<!ELEMENT x ANY><BlockMap>", 14, "", "directive"},
		{"too many attributes", "<BlockMap>", "<x a='' b='' c='' d='' e='' f='' g='' h='' i='' j='' k='' l='' m='' n='' o='' p='' q=''/><BlockMap>", 14,
			"x", "too many attributes"},
		{"lines inside tags count", "<ImageSize> 16000 </ImageSize>\n    <BlockSize> 4096 <", "<ImageSize\n> \n16000 </ImageSize\n>\n    <BlockSize> 0 <",
			8, "BlockSize", "is 0, expected 1"},
		// Root
		{"other root", "<bmap ", "<map ", 3, "map", "expected <bmap>"},
		{"root in capitals", "<bmap ", "<BMAP ", 3, "BMAP", "expected <bmap>"},
		{"no version", ` version="2.0"`, "", 3, "bmap", `version is ""`},
		{"unknown root attribute", `version="2.0"`, `version="2.0" x="y"`, 3, "bmap", "unknown attribute x"},
		// Scalars
		{"no ImageSize", "<ImageSize> 16000 </ImageSize>", "", 3, "ImageSize", "is missing"},
		{"no BlockSize", "<BlockSize> 4096 </BlockSize>", "", 3, "BlockSize", "is missing"},
		{"no BlocksCount", "<BlocksCount> 4 </BlocksCount>", "", 3, "BlocksCount", "is missing"},
		{"no MappedBlocksCount", "<MappedBlocksCount> 3 </MappedBlocksCount>", "", 3, "MappedBlocksCount", "is missing"},
		{"no ChecksumType", "<ChecksumType> sha256 </ChecksumType>", "", 3, "ChecksumType", "is missing"},
		{"no file checksum", "<BmapFileChecksum> " + sumMark + " </BmapFileChecksum>", "", 3, "BmapFileChecksum", "is missing"},
		{"no BlockMap", valid[strings.Index(valid, "<BlockMap>"):], "</bmap>", 3, "BlockMap", "is missing"},
		{"empty integer", " 16000 ", "", 4, "ImageSize", "is empty"},
		{"self-closing integer", "<BlockSize> 4096 </BlockSize>", "<BlockSize/>", 5, "BlockSize", "is empty"},
		{"ImageSize twice", "<BlockSize>", "<ImageSize> 1 </ImageSize><BlockSize>", 5, "ImageSize", "stands twice, first on line 4"},
		{"ChecksumType twice", "<BlockMap>", "<ChecksumType> sha256 </ChecksumType><BlockMap>", 14, "ChecksumType", "first on line 8"},
		{"BlockMap twice", "</bmap>", "<BlockMap></BlockMap></bmap>", 18, "BlockMap", "first on line 14"},
		{"value split by a comment", " 16000 ", " 1<!-- -->6000 ", 4, "ImageSize", "comment, CDATA or an entity"},
		{"comment beside the value", " 16000 ", " 16000<!-- --> ", 4, "ImageSize", "comment"},
		{"CDATA", " 16000 ", "<![CDATA[16000]]>", 4, "ImageSize", "CDATA"},
		{"character reference", " 16000 ", "&#49;6000", 4, "ImageSize", "entity"},
		{"element in a value", " 16000 ", "<b>16000</b>", 4, "ImageSize", "contains element <b>"},
		{"attribute on a value", "<ImageSize>", `<ImageSize unit="B">`, 4, "ImageSize", "unknown attribute unit"},
		{"hexadecimal", "16000", "0x3e80", 4, "ImageSize", "decimal"},
		{"octal", "16000", "037200", 4, "ImageSize", "leading zeros"},
		{"sign", "16000", "+16000", 4, "ImageSize", "decimal"},
		{"negative", "16000", "-16000", 4, "ImageSize", "decimal"},
		{"fraction", "16000", "16000.0", 4, "ImageSize", "decimal"},
		{"underscore", "16000", "16_000", 4, "ImageSize", "decimal"},
		{"other digits", "16000", "١٦٠٠٠", 4, "ImageSize", "decimal"},
		{"non-breaking space", " 16000 ", "\u00a016000", 4, "ImageSize", "decimal"},
		{"overflow", "16000", "9223372036854775808", 4, "ImageSize", "below 2^63"},
		{"too large", "16000", "9223372036854775807", 4, "ImageSize", "expected 1 to"},
		{"ImageSize 0", "16000", "0", 4, "ImageSize", "is 0, expected 1"},
		{"BlockSize 0", "4096", "0", 5, "BlockSize", "is 0, expected 1"},
		{"BlockSize not a power of two", "4096", "4000", 5, "BlockSize", "power of two"},
		{"BlockSize too large", "4096", "33554432", 5, "BlockSize", "expected 1 to 16777216"},
		{"BlocksCount 0", "> 4 <", "> 0 <", 6, "BlocksCount", "is 0, expected 1"},
		{"BlocksCount too large", "> 4 <", "> 5 <", 6, "BlocksCount", "is 5, expected 4 (ceil of ImageSize 16000 / BlockSize 4096)"},
		{"BlocksCount too small", "> 4 <", "> 3 <", 6, "BlocksCount", "is 3, expected 4"},
		{"MappedBlocksCount too small", "Count> 3 <", "Count> 2 <", 7, "MappedBlocksCount", "is 2, expected 3"},
		{"MappedBlocksCount too large", "Count> 3 <", "Count> 4 <", 7, "MappedBlocksCount", "is 4, expected 3"},
		{"MappedBlocksCount past the image", "Count> 3 <", "Count> 9 <", 7, "MappedBlocksCount", "expected 0 to 4"},
		{"unknown hash", "> sha256 <", "> blake2b <", 8, "ChecksumType", "expected sha256, sha512"},
		{"hash in capitals", "> sha256 <", "> SHA256 <", 8, "ChecksumType", "expected sha256"},
		{"empty hash", "> sha256 <", "><", 8, "ChecksumType", `is ""`},
		{"file checksum of another length", sumMark, "abcd", 9, "BmapFileChecksum", "expected 64 hex digits"},
		{"file checksum not hex", sumMark, strings.Repeat("g", 64), 9, "BmapFileChecksum", "expected 64 hex digits"},
		{"file checksum wrong", sumMark, digestA, 9, "BmapFileChecksum", "is " + digestA + ", expected"},
		{"1.3's file checksum", "<Update>", "<BmapFileSHA1> 00 </BmapFileSHA1><Update>", 10, "BmapFileSHA1", "does not belong to version 2.0"},
		// Ranges
		{"reversed", "0-1", "1-0", 15, "Range", "is 1-0"},
		{"overlap", "> 3 </R", "> 1 </R", 16, "Range", "starts at block 1, expected one above 1 (line 15 ends there)"},
		{"out of order", "> 0-1 <", "> 3 <", 16, "Range", "starts at block 3, expected one above 3"},
		{"past the image", "> 3 </R", "> 4 </R", 16, "Range", "ends at block 4, expected at most 3"},
		{"far past the image", "> 3 </R", "> 3-9223372036854775807 </R", 16, "Range", "past any image"},
		{"block number overflow", "> 3 </R", "> 18446744073709551619 </R", 16, "Range", "below 2^63"},
		{"empty range", "> 3 </R", "> </R", 16, "Range", "first block is empty"},
		{"no last block", "> 3 </R", "> 3- </R", 16, "Range", "last block is empty"},
		{"no first block", "> 3 </R", "> -3 </R", 16, "Range", "first block is empty"},
		{"two dashes", "> 3 </R", "> 2-3-4 </R", 16, "Range", `last block is "3-4"`},
		{"two numbers", "> 3 </R", "> 2 3 </R", 16, "Range", "decimal"},
		{"hexadecimal block", "> 3 </R", "> 0x3 </R", 16, "Range", "decimal"},
		{"comment in a range", "> 3 </R", "> <!-- -->3 </R", 16, "Range", "comment"},
		{"checksum too short", digestB, digestB[2:], 16, "Range", "has 62 hex digits, expected 64 as on line 15"},
		{"checksum too long", digestB, strings.Repeat("0", 200), 16, "Range", "has 200 hex digits, expected at most 128"},
		{"checksum not hex", digestB, "x" + digestB[1:], 16, "Range", "expected hex digits"},
		{"checksum of odd length", digestB, digestB[1:], 16, "Range", "expected hex digits"},
		{"checksum empty", digestB, "", 16, "Range", "expected hex digits"},
		{"first checksum empty", digestA, "", 15, "Range", "expected hex digits"},
		{"checksum with a blank", digestB, " " + digestB, 16, "Range", "expected hex digits"},
		{"checksum under 1.3's name", `chksum="` + digestB, `sha1="` + digestB, 16, "Range", "unknown attribute sha1"},
		{"checksum twice", `chksum="` + digestB, `chksum="" chksum="` + digestB, 16, "Range", "attribute chksum twice"},
		{"attribute on BlockMap", "<BlockMap>", "<BlockMap a='b'>", 14, "BlockMap", "unknown attribute a"},
		// Update
		{"Update twice", "<BlockMap>", "<Update></Update><BlockMap>", 14, "Update", "stands twice"},
		{"attribute on Update", "<Update>", "<Update a='b'>", 10, "Update", "unknown attribute a"},
		{"unknown child", "Product> acme-gw </Product", "Produkt> acme-gw </Produkt", 11, "Produkt", "unknown inside <Update>"},
		{"child twice", "</Update>", "<Product> b </Product></Update>", 13, "Product", "stands twice, first on line 11"},
		{"empty child", " acme-gw ", "", 11, "Product", "is empty"},
		{"text in Update", "    </Update>", "x</Update>", 13, "Update", `text "x"`},
		{"entity in a child", "acme-gw", "acme&amp;gw", 11, "Product", "entity"},
		{"line break in a child", "acme-gw", "acme\ngw", 11, "Product", "one line"},
		{"long child", "acme-gw", strings.Repeat("x", 256), 11, "Product", "256 bytes, expected at most 255"},
		{"negative rollback index", "17", "-17", 12, "RollbackIndex", "decimal"},
		{"unknown unmapped policy", "</Update>", "<Unmapped> discard </Unmapped></Update>", 13, "Unmapped", "expected zero or keep"},
		{"date without a zone", "</Update>", "<Created> 2026-01-31T12:00:00 </Created></Update>", 13, "Created", "RFC 3339"},
		{"date in words", "</Update>", "<Expires> tomorrow </Expires></Update>", 13, "Expires", "RFC 3339"},
		{"expired when made", "</Update>", "<Created> 2026-01-31T12:00:00Z </Created>\n<Expires> 2026-01-31T12:00:00Z </Expires></Update>", 14, "Expires",
			"after Created"},
		{"image checksum of another length", "</Update>", "<ImageChecksum> abcd </ImageChecksum></Update>", 13, "ImageChecksum",
			"has 4 hex digits, expected 64"},
		{"image checksum not hex", "</Update>", "<ImageChecksum> xyz </ImageChecksum></Update>", 13, "ImageChecksum", "expected hex digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(valid, tt.old, tt.new, 1)
			if text == valid {
				t.Fatal("mutation changes nothing")
			}
			_, err := bmap.Parse(seal(text))
			wantSyntaxError(t, err, tt.line, tt.element, tt.msg)
		})
	}
}

// TestParseRefusesOther lists faults that are not one replacement in valid.
func TestParseRefusesOther(t *testing.T) {
	v13 := `<bmap version="1.3">
<ImageSize>4096</ImageSize><BlockSize>4096</BlockSize><BlocksCount>1</BlocksCount><MappedBlocksCount>1</MappedBlocksCount>
<BmapFileSHA1>` + sumMark + `</BmapFileSHA1>
<BlockMap><Range sha1="` + digestA[:40] + `">0</Range></BlockMap></bmap>`
	if _, err := bmap.Parse(sealSHA1(v13)); err != nil {
		t.Fatalf("the 1.3 file to mutate: %v", err)
	}
	tests := []struct {
		name    string
		data    []byte
		line    int
		element string
		msg     string
	}{
		{"one digit changed", []byte(strings.Replace(string(seal(valid)), "16000", "16001", 1)), 9, "BmapFileChecksum", "sha256 of this file"},
		{"a comment changed", []byte(strings.Replace(string(seal(valid)), "a comment", "b comment", 1)), 9, "BmapFileChecksum", "sha256 of this file"},
		{"1.3 changed", []byte(strings.Replace(string(sealSHA1(v13)), ">4096<", ">4095<", 1)), 3, "BmapFileSHA1", "sha1 of this file"},
		{"2.0 relabelled 1.2", seal(strings.Replace(valid, `"2.0"`, `"1.2"`, 1)), 8, "ChecksumType", "does not belong to version 1.2"},
		{"2.0 relabelled 1.3", seal(strings.Replace(valid, `"2.0"`, `"1.3"`, 1)), 8, "ChecksumType", "does not belong to version 1.3"},
		{"1.3 relabelled 1.2", []byte(strings.Replace(string(sealSHA1(v13)), `"1.3"`, `"1.2"`, 1)), 3, "BmapFileSHA1", "does not belong to version 1.2"},
		{"1.3 relabelled 2.0", []byte(strings.Replace(string(sealSHA1(v13)), `"1.3"`, `"2.0"`, 1)), 3, "BmapFileSHA1", "does not belong to version 2.0"},
		{"1.3 with sha256 ranges", sealSHA1(strings.Replace(v13, digestA[:40], digestA, 1)), 4, "Range", "has 64 hex digits, expected 40 (sha1)"},
		{"1.3 with 2.0's attribute", sealSHA1(strings.Replace(v13, "sha1=", "chksum=", 1)), 4, "Range", "unknown attribute chksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := bmap.Parse(tt.data)
			wantSyntaxError(t, err, tt.line, tt.element, tt.msg)
		})
	}
	_, err := bmap.Parse(seal(strings.Replace(valid, "> 4 <", "> 5 <", 1)))
	if got, want := err.Error(), "bmap line 6: <BlocksCount>: is 5, expected 4 (ceil of ImageSize 16000 / BlockSize 4096)"; got != want {
		t.Errorf("error is %q; want %q", got, want)
	}
}

// TestParseEveryCut cuts a valid file at each byte and flips each byte: never a panic, never a different map.
func TestParseEveryCut(t *testing.T) {
	data := seal(valid)
	for i := range data {
		if _, err := bmap.Parse(data[:i]); err == nil && i != len(data)-1 {
			t.Errorf("the first %d bytes were accepted", i)
		}
	}
	for i := range data {
		mutant := append([]byte(nil), data...)
		mutant[i] ^= 0x20
		// Upper case of the file checksum's own digits is the one change that means the same.
		if m, err := bmap.Parse(mutant); err == nil && string(m.Encode()) != string(mustParse(t, data).Encode()) {
			t.Errorf("flipping byte %d gave another map", i)
		}
	}
}
