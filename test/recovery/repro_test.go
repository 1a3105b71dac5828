//go:build vm

package recovery

import (
	"os"
	"strings"
	"testing"
	"time"

	"updater/internal/abdisk"
)

// An image built twice has the same bytes, although the clock went on.
func TestSlotIsReproducible(t *testing.T) {
	r := newRig(t)
	for _, kind := range []abdisk.Kind{abdisk.Small, abdisk.Debian} {
		image := r.slot(t, kind, "9")
		first := strings.Fields(tool(t, "sha256sum", image))[0]
		if out := tool(t, "e2fsck", "-fn", image); strings.Contains(out, "Fix") {
			t.Errorf("e2fsck of %s:\n%s", kind, out)
		}
		if err := os.Remove(image + ".stamp"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond)
		r.slot(t, kind, "9")
		if second := strings.Fields(tool(t, "sha256sum", image))[0]; second != first {
			t.Errorf("%s: built again, sha256 is %s; want %s", kind, second, first)
		}
	}
}
