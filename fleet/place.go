package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"updater/release"
)

// Place is where a device stands in the rollout of a release, from 0 to below 1: the first 8 bytes of sha256(identifier, 0x00, identity)
// as a fraction. Every release has another order of the devices.
func Place(identifier, identity string) float64 {
	sum := sha256.Sum256([]byte(identifier + "\x00" + identity))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// Turn is the time from which a device at a place may install the release. ok is false when the rollout is held below that place.
func Turn(r *release.Rollout, place float64) (from time.Time, ok bool) {
	first := float64(r.Percent) / 100
	switch {
	case place < first:
		return r.Start, true
	case r.Hours == 0:
		return time.Time{}, false
	}
	seconds := float64(r.Hours*3600) * ((place - first) / (1 - first))
	return r.Start.Add(time.Duration(math.Ceil(seconds)) * time.Second), true
}
