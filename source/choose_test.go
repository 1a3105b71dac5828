package source

import (
	"testing"

	"updater/pack"
)

// FuzzChoose: for any table and any wishes, the parts hold every frame that a wish touches, ascend, do not overlap, and begin and
// end where frames do.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{0, 1, 4, 2})
	f.Add([]byte{255, 0, 255, 1, 255, 255}, []byte{10, 200, 0, 1, 0, 0})
	f.Add([]byte{}, []byte{1, 1})
	f.Fuzz(func(t *testing.T, table, wishes []byte) {
		var frames []pack.Frame
		var at, offset int64
		for i := 0; i+1 < len(table); i += 2 {
			fr := pack.Frame{At: at, Packed: int64(table[i])<<9 + 1, Offset: offset, Length: int64(table[i+1]) << 10}
			at, offset = at+fr.Packed, offset+fr.Length
			frames = append(frames, fr)
		}
		var want []pack.Range
		var end int64
		for i := 0; i+1 < len(wishes); i += 2 {
			w := pack.Range{Offset: end + int64(wishes[i])<<8, Length: int64(wishes[i+1])<<8 + 1}
			end = w.Offset + w.Length
			want = append(want, w)
		}
		parts, held := choose(frames, want)
		in := map[int64]bool{}
		for _, h := range held {
			in[h.At] = true
		}
		starts, ends := map[int64]bool{}, map[int64]bool{}
		for _, fr := range frames {
			starts[fr.At], ends[fr.At+fr.Packed] = true, true
			touched := false
			for _, w := range want {
				touched = touched || fr.Length > 0 && w.Offset < fr.Offset+fr.Length && fr.Offset < w.Offset+w.Length
			}
			if touched && !in[fr.At] {
				t.Fatalf("the frame at %d is wanted and not fetched", fr.At)
			}
		}
		last := int64(-requestCost - 1)
		var bytes, sum int64
		for _, p := range parts {
			if p.from-last <= requestCost || p.to <= p.from || !starts[p.from] || !ends[p.to] {
				t.Fatalf("part %+v, behind %d", p, last)
			}
			last = p.to
			bytes += p.to - p.from
		}
		for _, h := range held {
			sum += h.Packed
		}
		if sum > bytes {
			t.Fatalf("%d bytes of frames in %d bytes of parts", sum, bytes)
		}
	})
}
