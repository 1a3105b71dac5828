package update

import (
	"cmp"

	"updater/bmap"
)

// Sizes are the internal sizes of an install, in bytes; 0 is the default of each. Small ones are for tests: they give an image of a few
// KiB every border of a long one.
type Sizes struct {
	Chunk  int64 // of one buffer of the image stream; 256 KiB
	Held   int64 // ranges of at most this length are compared before their first byte is written, at least 4096; 4 MiB
	Gap    int64 // unit of the image in which holes are zeroed before data is written, since zeroing drops cached pages; 8 MiB
	Piece  int64 // bytes zeroed or discarded between two checks of the context; 64 MiB
	Read   int64 // one read of the medium, each reader has one such buffer; 512 KiB, of which three keep a fast disk busy
	Budget int64 // bytes that are compared in vain, beyond those found equal, before comparing is given up; 16 MiB
}

func (s Sizes) orDefault() Sizes {
	return Sizes{
		Chunk: cmp.Or(s.Chunk, 256<<10), Held: cmp.Or(s.Held, bmap.HeldRange), Gap: cmp.Or(s.Gap, 8<<20), Piece: cmp.Or(s.Piece, 64<<20),
		Read: cmp.Or(s.Read, 512<<10), Budget: cmp.Or(s.Budget, 16<<20),
	}
}

// ahead is how many chunks keep every stage busy.
const ahead = 7

// buffers is the number of chunks for a map: those of the longest range that is held until its checksum is known, and ahead more.
func (s Sizes) buffers(m *bmap.Map) int {
	return ahead + int((min(m.Longest(), s.Held)+s.Chunk-1)/s.Chunk)
}
