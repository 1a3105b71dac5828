package bmap

import (
	"slices"
	"sort"
)

// toBlocks turns extents in bytes into ascending, disjoint runs of blocks with a gap between any two. Extents are
// clipped at size and rounded outwards, so no mapped byte is lost.
func toBlocks(extents []Span, size, blockSize int64) []blockRange {
	extents = slices.Clone(extents)
	sort.Slice(extents, func(i, j int) bool { return extents[i].Offset < extents[j].Offset })
	var runs []blockRange
	for _, e := range extents {
		from, to := max(e.Offset, 0), size
		if e.Length < size-from {
			to = e.Offset + e.Length
		}
		if from >= to {
			continue
		}
		b := blockRange{from / blockSize, (to - 1) / blockSize}
		if n := len(runs); n > 0 && b.first <= runs[n-1].last+1 {
			runs[n-1].last = max(runs[n-1].last, b.last)
			continue
		}
		runs = append(runs, b)
	}
	return runs
}
