package source

import (
	"bufio"
	"compress/bzip2"
	"io"
)

// bzip2Magics are "BZh", the level, and the mark of a block or, in a file of no bytes, of the end.
func bzip2Magics() []string {
	var magics []string
	for level := '1'; level <= '9'; level++ {
		magics = append(magics, "BZh"+string(level)+"1AY&SY", "BZh"+string(level)+"\x17\x72\x45\x38\x50\x90")
	}
	return magics
}

// openBzip2 reads the streams of a bzip2 file.
func openBzip2(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	return bzip2.NewReader(r), nil, nil
}
