package source

import "io"

// xzInput is an encoded block of size bytes in memory, in buffers that are reused once they are read.
type xzInput struct {
	size  int64
	list  [][]byte
	at    int // offset in the first buffer
	spare chan []byte
}

// fill reads the block from r.
func (i *xzInput) fill(r io.Reader) error {
	for left := i.size; left > 0; {
		var buf []byte
		select {
		case buf = <-i.spare:
		default:
			buf = make([]byte, xzPiece)
		}
		n, err := io.ReadFull(r, buf[:min(left, xzPiece)])
		if err != nil {
			return err
		}
		i.list, left = append(i.list, buf[:n]), left-int64(n)
	}
	return nil
}

// Read implements io.Reader.
func (i *xzInput) Read(p []byte) (int, error) {
	if len(i.list) == 0 {
		return 0, io.EOF
	}
	first := i.list[0]
	n := copy(p, first[i.at:])
	if i.at += n; i.at == len(first) {
		i.list, i.at = i.list[1:], 0
		select {
		case i.spare <- first[:xzPiece]:
		default: // enough spare buffers
		}
	}
	return n, nil
}
