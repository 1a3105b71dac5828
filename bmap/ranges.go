package bmap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
)

// A rangeList collects the ranges of a file. Everything that needs only the ranges themselves is checked as they come,
// so that a hostile list stops early; check does the rest.
type rangeList struct {
	blocks []blockRange
	sums   []byte
	summed []bool
	lines  []int32
	mapped int64 // blocks
	size   int   // bytes of a digest, 0 before the first
	line   int   // line of the first digest
}

// rangeOrUnknown reads one child of <BlockMap>.
func (p *parser) rangeOrUnknown(start tag) error {
	if string(start.name) != "Range" {
		return p.skip(start, 3)
	}
	l := &p.ranges
	if len(l.blocks) == MaxRanges {
		return p.errorf("Range", "is one too many, expected at most %d ranges", MaxRanges)
	}
	line := p.line
	digest, ok, err := p.attribute(start, p.dialect.attribute)
	if err != nil {
		return err
	}
	text, _, err := p.text("Range")
	if err != nil {
		return err
	}
	b, err := parseBlocks(text)
	if err != nil {
		return &SyntaxError{line, "Range", err.Error()}
	}
	if err := l.add(b, line); err != nil {
		return &SyntaxError{line, "Range", err.Error()}
	}
	if err := l.addSum(digest, ok, line); err != nil {
		return &SyntaxError{line, "Range", p.dialect.attribute + " " + err.Error()}
	}
	return nil
}

// parseBlocks reads "a" or "a-b", white space allowed around each number.
func parseBlocks(text []byte) (blockRange, error) {
	a, b, isPair := bytes.Cut(text, []byte("-"))
	first, err := parseDecimal(bytes.Trim(a, spaces))
	if err != nil {
		return blockRange{}, fmt.Errorf("first block %w", err)
	}
	if !isPair {
		return blockRange{first, first}, nil
	}
	last, err := parseDecimal(bytes.Trim(b, spaces))
	if err != nil {
		return blockRange{}, fmt.Errorf("last block %w", err)
	}
	if last < first {
		return blockRange{}, fmt.Errorf("is %d-%d, expected the last block not below the first", first, last)
	}
	return blockRange{first, last}, nil
}

func (l *rangeList) add(b blockRange, line int) error {
	if n := len(l.blocks); n > 0 && b.first <= l.blocks[n-1].last {
		return fmt.Errorf("starts at block %d, expected one above %d (line %d ends there)", b.first, l.blocks[n-1].last, l.lines[n-1])
	}
	if b.last == math.MaxInt64 {
		return fmt.Errorf("ends at block %d, which is past any image", b.last)
	}
	// Ascending and disjoint, so the sum cannot exceed the last block number.
	l.mapped += b.last - b.first + 1
	l.blocks = append(l.blocks, b)
	l.lines = append(l.lines, int32(line))
	return nil
}

// addSum adds the digest of the range added last. The hash may be named only later, but all digests are of one length.
func (l *rangeList) addSum(digest []byte, ok bool, line int) error {
	l.summed = append(l.summed, ok)
	if !ok {
		l.sums = append(l.sums, make([]byte, l.size)...)
		return nil
	}
	if len(digest) > 2*maxDigest {
		return fmt.Errorf("has %d hex digits, expected at most %d", len(digest), 2*maxDigest)
	}
	if l.size == 0 {
		l.size, l.line = len(digest)/2, line
		l.sums = append(l.sums, make([]byte, l.size*(len(l.blocks)-1))...)
	}
	n := len(l.sums)
	var err error
	if l.sums, err = hex.AppendDecode(l.sums, digest); err != nil || len(digest) == 0 {
		return fmt.Errorf("is %.140q, expected hex digits", digest)
	}
	if got := len(l.sums) - n; got != l.size {
		return fmt.Errorf("has %d hex digits, expected %d as on line %d", 2*got, 2*l.size, l.line)
	}
	return nil
}

// check compares the ranges with the head of the map.
func (l *rangeList) check(m *Map) error {
	if n := len(l.blocks); n > 0 && l.blocks[n-1].last >= m.BlocksCount() {
		for i, b := range l.blocks {
			if b.last >= m.BlocksCount() {
				return &SyntaxError{int(l.lines[i]), "Range", fmt.Sprintf("ends at block %d, expected at most %d (BlocksCount - 1)", b.last, m.BlocksCount()-1)}
			}
		}
	}
	if l.size != 0 && l.size != m.algorithm.size {
		return &SyntaxError{l.line, "Range", fmt.Sprintf("checksum has %d hex digits, expected %d (%s)", 2*l.size, 2*m.algorithm.size, m.algorithm.name)}
	}
	if l.size == 0 {
		l.sums = nil
	}
	return nil
}
