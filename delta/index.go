package delta

import (
	"cmp"
	"context"
	"io"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"updater/pack"
)

// Anchors are places that depend on content alone: a rolling hash of the last 64 bytes has anchorBits zeros. Content that moved by any number
// of bytes keeps its anchors.
const (
	anchorMask = (1<<9 - 1) << 55 // the bits that most bytes have reached
	gearBytes  = 64
	maxPlaces  = 8 // windows of one anchor that are considered
)

// gear is the table of the rolling hash: splitmix64 of the byte.
var gear = func() (table [256]uint64) {
	for i := range table {
		x := uint64(i+1) * 0x9E3779B97F4A7C15
		x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
		x = (x ^ x>>27) * 0x94D049BB133111EB
		table[i] = x ^ x>>31
	}
	return table
}()

// anchors appends the hashes at the anchors of p.
func anchors(found []uint64, p []byte) []uint64 {
	var h, last uint64
	for i, b := range p {
		h = h<<1 + gear[b]
		if h&anchorMask == 0 && h != last && i >= gearBytes {
			last = h
			found = append(found, h)
		}
	}
	return found
}

// place is a window of the old image with an anchor.
type place struct {
	anchor uint64
	window uint32
}

// index finds windows by their anchors. It is sorted.
type index []place

// newIndex reads the old image: all windows that its ranges touch.
func newIndex(ctx context.Context, old io.ReaderAt, size int64, ranges []pack.Range) (index, error) {
	windows := windowsOf(ranges, size)
	workers := runtime.GOMAXPROCS(0)
	parts := make([]index, workers)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for i := range workers {
		group.Go(func() error {
			buf := make([]byte, 0, WindowSize)
			var found []uint64
			for {
				n := int(next.Add(1) - 1)
				if n >= len(windows) {
					return nil
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				p, err := readWindows(buf, old, windows[n:n+1])
				if err != nil {
					return err
				}
				found = anchors(found[:0], p)
				for _, a := range found {
					parts[i] = append(parts[i], place{a, uint32(windows[n].Offset / WindowSize)})
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(parts...)
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(a.anchor, b.anchor), cmp.Compare(a.window, b.window)) })
	return slices.Compact(all), nil
}

// windowsOf lists the windows of an image that hold a part of a range.
func windowsOf(ranges []pack.Range, size int64) []Window {
	var all []Window
	var next int64
	for _, r := range ranges {
		for w := max(next, r.Offset/WindowSize); w*WindowSize < min(r.Offset+r.Length, size); w++ {
			all = append(all, Window{Offset: w * WindowSize, Length: int(min(WindowSize, size-w*WindowSize))})
			next = w + 1
		}
	}
	return all
}

// places returns the windows that hold an anchor, the first few.
func (x index) places(anchor uint64) []place {
	from, _ := slices.BinarySearchFunc(x, anchor, func(p place, a uint64) int { return cmp.Compare(p.anchor, a) })
	to := from
	for to < len(x) && x[to].anchor == anchor && to-from < maxPlaces {
		to++
	}
	return x[from:to]
}

// choose returns the windows of a dictionary for content, ascending. It adds the window with the most anchors that no chosen one holds,
// again and again.
func (x index) choose(content []byte) []uint32 {
	found := anchors(nil, content)
	slices.Sort(found)
	found = slices.Compact(found)
	holds, left := map[uint32][]int{}, map[uint32]int{}
	for i, a := range found {
		for _, p := range x.places(a) {
			holds[p.window] = append(holds[p.window], i)
			left[p.window]++
		}
	}
	covered := make([]bool, len(found))
	var chosen []uint32
	for len(chosen) < MaxWindows {
		best, most := uint32(0), 0
		for w, n := range left {
			if n > most || n == most && w < best {
				best, most = w, n
			}
		}
		if most == 0 {
			break
		}
		chosen = append(chosen, best)
		for _, i := range holds[best] {
			if covered[i] {
				continue
			}
			covered[i] = true
			for _, p := range x.places(found[i]) {
				if left[p.window]--; left[p.window] <= 0 {
					delete(left, p.window)
				}
			}
		}
	}
	slices.Sort(chosen)
	return chosen
}
