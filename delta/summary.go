package delta

import "encoding/hex"

// Summary describes a delta to people and machines.
type Summary struct {
	Base        string `json:"base"`   // sha256 of the bmap of the old image, hex
	Target      string `json:"target"` // of the new one
	BaseBytes   int64  `json:"base_bytes"`
	Bytes       int64  `json:"bytes"`
	TableBytes  int64  `json:"table_bytes"`
	Frames      int    `json:"frames"`
	Made        int64  `json:"made_bytes"`   // of the new image
	Windows     int    `json:"windows"`      // of the old image, different ones
	WindowBytes int64  `json:"window_bytes"` // of all
	Dictionary  int64  `json:"dictionary_bytes"`
}

// Summary counts the inputs and the output of the delta.
func (t *Table) Summary() Summary {
	s := Summary{
		Base: hex.EncodeToString(t.Base[:]), Target: hex.EncodeToString(t.Target[:]), BaseBytes: t.BaseSize,
		Bytes: t.Size, TableBytes: t.Size, Windows: len(t.Windows),
	}
	for _, w := range t.Windows {
		s.WindowBytes += int64(w.Length)
	}
	for _, f := range t.Frames {
		if f.Packed > 0 {
			s.Frames++
		}
		s.Made += f.Length
		s.TableBytes -= f.Packed
		for _, w := range t.Dictionary(f) {
			s.Dictionary += int64(w.Length)
		}
	}
	return s
}
