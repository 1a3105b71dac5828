package source

import (
	"bufio"
	"compress/bzip2"
	"io"
)

// bzip2Magics are "BZh", the level, and the magic of a block or, in an empty file, of the end of the stream.
func bzip2Magics() []string {
	var magics []string
	for level := '1'; level <= '9'; level++ {
		magics = append(magics, "BZh"+string(level)+"1AY&SY", "BZh"+string(level)+"\x17\x72\x45\x38\x50\x90")
	}
	return magics
}

// openBzip2 decodes the streams of a bzip2 file.
func openBzip2(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	return bzip2.NewReader(r), nil, nil
}
