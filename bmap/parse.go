package bmap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
)

// Parse reads one bmap file of version 1.2, 1.3, 1.4 or 2.x and checks all of it, including the file's own checksum
// if the version has one. Unknown elements are ignored, except inside <Update>; known ones must appear once and have no unknown
// attribute. Every error is a *SyntaxError. Parse keeps no reference to data.
//
// Source: bmaptool, whose reader is laxer; the package documentation lists the additional checks.
func Parse(data []byte) (*Map, error) {
	s, err := newScanner(data)
	if err != nil {
		return nil, err
	}
	p := parser{scanner: s, fields: make(map[string]field), algorithm: sha1Algorithm()}
	if err := p.document(); err != nil {
		return nil, err
	}
	return p.finish()
}

// A dialect holds the differences between the versions of the format. 1.4 was a misnamed 2.0.
type dialect struct {
	checksumType bool   // whether <ChecksumType> names the hash; sha1 otherwise
	fileChecksum string // element with the checksum of the file itself, "" for none
	attribute    string // attribute of <Range> with its checksum
}

// parser collects the values of the file with their lines. finish checks them.
type parser struct {
	*scanner
	version   string
	dialect   dialect
	root      int // line of <bmap>
	algorithm algorithm
	fields    map[string]field // scalar elements by name
	ranges    rangeList
	blockMap  int // line of <BlockMap>, 0 when missing
	update    *Update
	updates   map[string]int // line of each child of <Update>
}

// A field is a scalar element of the file.
type field struct {
	line int
	text string
	at   span
}

func sha1Algorithm() algorithm {
	a, _ := algorithmByName("sha1")
	return a
}

// document reads the whole file: one root, with only white space and comments around it.
func (p *parser) document() error {
	for {
		kind, err := p.next()
		if err != nil {
			return err
		}
		switch kind {
		case tokenEnd:
			if p.root == 0 {
				return p.cutOff("")
			}
			return nil
		case tokenStart:
			err = p.bmap(p.tag)
		case tokenClose:
			err = p.errorf(string(p.tag.name), "ends without a start")
		default:
			err = p.checkBlank("")
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) bmap(start tag) error {
	if p.root > 0 {
		return p.errorf(string(start.name), "stands after the end of <bmap>, expected the end of the file")
	}
	if string(start.name) != "bmap" {
		return p.errorf(string(start.name), "is the root element, expected <bmap>")
	}
	p.root = p.line
	version, _, err := p.attribute(start, "version")
	if err != nil {
		return err
	}
	p.version = string(version)
	if p.dialect, err = p.dialectOf(p.version); err != nil {
		return err
	}
	return p.children("bmap", p.child)
}

// dialectOf returns the dialect of a version. bmaptool verifies no checksum at all in versions it does not expect, so an
// unknown one must never pass.
func (p *parser) dialectOf(version string) (dialect, error) {
	minor, isV2 := strings.CutPrefix(version, "2.")
	if n, err := parseDecimal([]byte(minor)); isV2 && err == nil && n < 1000 {
		version = "2.0"
	}
	switch version {
	case "1.2":
		return dialect{attribute: "sha1"}, nil
	case "1.3":
		return dialect{fileChecksum: "BmapFileSHA1", attribute: "sha1"}, nil
	case "1.4", "2.0":
		return dialect{checksumType: true, fileChecksum: "BmapFileChecksum", attribute: "chksum"}, nil
	}
	return dialect{}, p.errorf("bmap", "version is %.20q, expected 1.2, 1.3, 1.4 or 2.x", version)
}

// child reads one child of <bmap>.
func (p *parser) child(start tag) error {
	name := string(start.name)
	switch name {
	case "BlockMap":
		if p.blockMap > 0 {
			return p.errorf(name, "stands twice, first on line %d", p.blockMap)
		}
		p.blockMap = p.line
		if _, _, err := p.attribute(start, ""); err != nil {
			return err
		}
		return p.children(name, p.rangeOrUnknown)
	case "Update":
		return p.updateElement(start)
	case "ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount":
		return p.scalar(start)
	case "ChecksumType":
		return p.scalarOf(start, p.dialect.checksumType)
	case "BmapFileChecksum", "BmapFileSHA1":
		return p.scalarOf(start, p.dialect.fileChecksum == name)
	}
	return p.skip(start, 2)
}

func (p *parser) scalarOf(start tag, known bool) error {
	if !known {
		return p.errorf(string(start.name), "does not belong to version %s", p.version)
	}
	return p.scalar(start)
}

func (p *parser) scalar(start tag) error {
	name := string(start.name)
	if first, ok := p.fields[name]; ok {
		return p.errorf(name, "stands twice, first on line %d", first.line)
	}
	if _, _, err := p.attribute(start, ""); err != nil {
		return err
	}
	line := p.line
	text, at, err := p.text(name)
	if err != nil {
		return err
	}
	p.fields[name] = field{line: line, text: string(text), at: at}
	return nil
}

// attribute returns the value of the only attribute that the element may have; name "" means none. A value with an entity is
// refused, since readers may disagree on it.
func (p *parser) attribute(start tag, name string) (value []byte, ok bool, err error) {
	for _, a := range start.attrs {
		if string(a.name) != name {
			return nil, false, p.errorf(string(start.name), "has the unknown attribute %.40s", a.name)
		}
		if bytes.IndexByte(a.value, '&') >= 0 {
			return nil, false, p.errorf(string(start.name), "has an entity in attribute %s, expected plain text", name)
		}
		value, ok = a.value, true
	}
	return value, ok, nil
}

func (p *parser) updateElement(start tag) error {
	if p.update != nil {
		return p.errorf("Update", "stands twice")
	}
	if _, _, err := p.attribute(start, ""); err != nil {
		return err
	}
	p.update, p.updates = &Update{}, map[string]int{"Update": p.line}
	known := updateFields()
	return p.children("Update", func(start tag) error {
		for _, f := range known {
			if f.name == string(start.name) {
				return p.updateChild(start, f)
			}
		}
		return p.errorf(string(start.name), "is unknown inside <Update>")
	})
}

func (p *parser) updateChild(start tag, f updateField) error {
	if first, ok := p.updates[f.name]; ok {
		return p.errorf(f.name, "stands twice, first on line %d", first)
	}
	if _, _, err := p.attribute(start, ""); err != nil {
		return err
	}
	p.updates[f.name] = p.line
	text, _, err := p.text(f.name)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		return p.errorf(f.name, "is empty")
	}
	if err := f.set(p.update, string(text)); err != nil {
		return p.errorf(f.name, "%s", err)
	}
	return nil
}

// finish checks the collected values: the file checksum first, then every count.
func (p *parser) finish() (*Map, error) {
	if err := p.checkFile(); err != nil {
		return nil, err
	}
	m := &Map{version: p.version, algorithm: p.algorithm, update: p.update}
	var err error
	if m.imageSize, err = p.integer("ImageSize", 1, MaxImageSize); err != nil {
		return nil, err
	}
	if m.blockSize, err = p.integer("BlockSize", 1, MaxBlockSize); err != nil {
		return nil, err
	}
	if m.blockSize&(m.blockSize-1) != 0 {
		return nil, p.fieldErrorf("BlockSize", "is %d, expected a power of two", m.blockSize)
	}
	count, err := p.integer("BlocksCount", 1, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	if want := m.BlocksCount(); count != want {
		return nil, p.fieldErrorf("BlocksCount", "is %d, expected %d (ceil of ImageSize %d / BlockSize %d)", count, want, m.imageSize, m.blockSize)
	}
	if m.mappedBlocks, err = p.integer("MappedBlocksCount", 0, count); err != nil {
		return nil, err
	}
	if p.blockMap == 0 {
		return nil, &SyntaxError{p.root, "BlockMap", "is missing"}
	}
	if err := p.ranges.check(m); err != nil {
		return nil, err
	}
	if sum := p.ranges.mapped; sum != m.mappedBlocks {
		return nil, p.fieldErrorf("MappedBlocksCount", "is %d, expected %d (blocks in all ranges)", m.mappedBlocks, sum)
	}
	if m.update != nil {
		if name, err := checkUpdate(m.update, m.algorithm); err != nil {
			return nil, &SyntaxError{p.updates[name], name, err.Error()}
		}
	}
	m.blocks, m.sums, m.summed = p.ranges.blocks, p.ranges.sums, p.ranges.summed
	return m, nil
}

// checkFile finds the hash and verifies the checksum of the file itself.
func (p *parser) checkFile() error {
	if p.dialect.checksumType {
		f, err := p.field("ChecksumType")
		if err != nil {
			return err
		}
		var ok bool
		if p.algorithm, ok = algorithmByName(f.text); !ok {
			return p.fieldErrorf("ChecksumType", "is %.40q, expected %s", f.text, hashNames)
		}
	}
	name := p.dialect.fileChecksum
	if name == "" {
		return nil
	}
	f, err := p.field(name)
	if err != nil {
		return err
	}
	sum, err := hex.DecodeString(f.text)
	if err != nil || len(sum) != p.algorithm.size {
		return p.fieldErrorf(name, "is %.140q, expected %d hex digits (%s)", f.text, 2*p.algorithm.size, p.algorithm.name)
	}
	if want := fileChecksum(p.data, f.at, p.algorithm); !bytes.Equal(sum, want) {
		return p.fieldErrorf(name, "is %x, expected %x (%s of this file)", sum, want, p.algorithm.name)
	}
	return nil
}

func (p *parser) field(name string) (field, error) {
	f, ok := p.fields[name]
	if !ok {
		return field{}, &SyntaxError{p.root, name, "is missing"}
	}
	return f, nil
}

func (p *parser) integer(name string, low, high int64) (int64, error) {
	f, err := p.field(name)
	if err != nil {
		return 0, err
	}
	n, err := parseDecimal([]byte(f.text))
	if err != nil {
		return 0, p.fieldErrorf(name, "%s", err)
	}
	if n < low || n > high {
		return 0, p.fieldErrorf(name, "is %d, expected %d to %d", n, low, high)
	}
	return n, nil
}

func (p *parser) fieldErrorf(name, format string, args ...any) error {
	return &SyntaxError{p.fields[name].line, name, fmt.Sprintf(format, args...)}
}
