package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strconv"
)

// Identity returns the name of the content that the release installs, as 64 lower-case hex digits. Rollout, history, reports and
// the question whether there is anything to do use it, never the checksum of the document: another expires, note or file name
// leaves it unchanged, and so does the order of the images.
//
// It is the sha256 of a sequence of strings, each written as its length in bytes as a decimal number, a colon, its bytes
// and a comma (a netstring): "release identity 1", the product, the version, the rollback index as a decimal number, and for each image the
// role, the slot ("" if it is for every slot) and the sha256 of its block map as hex digits. The images are sorted by these three, as bytes.
func (r *Release) Identity() string { return r.identity }

func (c *Contents) identity() string {
	h := sha256.New()
	write := func(list ...string) {
		for _, s := range list {
			fmt.Fprintf(h, "%d:%s,", len(s), s)
		}
	}
	write("release identity 1", c.Product, c.Version, strconv.FormatInt(c.RollbackIndex, 10))
	images := slices.Clone(c.Images)
	sort.Slice(images, func(i, j int) bool { return compareImages(images[i], images[j]) < 0 })
	for _, i := range images {
		write(i.Role, i.Slot, i.BmapSHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compareImages(a, b Image) int {
	return slices.Compare([]string{a.Role, a.Slot, a.BmapSHA256}, []string{b.Role, b.Slot, b.BmapSHA256})
}
