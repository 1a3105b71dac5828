package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// limitDirty asks the kernel to write dirty pages of the disk out early: strict_limit and max_bytes (Linux 6.2 and
// later), else a max_ratio of 1 per cent (Documentation/ABI/testing/sysfs-class-bdi). sysfs is the folder of the
// disk. It returns what puts the old values back; what cannot be set is left alone. A share of 0, under which every
// write waits, is what a program leaves that keeps a small share in whole per cent: the kernel's default takes its place.
func limitDirty(sysfs string, bytes int64) (restore func() error) {
	bdi := filepath.Join(sysfs, "bdi")
	var undo []func() error
	// set writes a value and remembers what keep held, which may tell the same more exactly; all is the default of a share.
	set := func(name, value, keep, all string) bool {
		old, err := os.ReadFile(filepath.Join(bdi, keep))
		if err != nil || os.WriteFile(filepath.Join(bdi, name), []byte(value), 0) != nil {
			return false
		}
		back := strings.TrimSpace(string(old))
		if back == "0" && all != "" {
			back = all
		}
		undo = append(undo, func() error { return os.WriteFile(filepath.Join(bdi, keep), []byte(back), 0) })
		return true
	}
	// max_bytes is kept as a share of the memory, which max_ratio_fine gives as it is. Where the kernel lets less be dirty
	// in all it refuses it, and nothing is to be done.
	if _, err := os.Stat(filepath.Join(bdi, "max_bytes")); err != nil {
		set("max_ratio", "1", "max_ratio", "100")
	} else if set("max_bytes", strconv.FormatInt(bytes, 10), "max_ratio_fine", "1000000") {
		set("strict_limit", "1", "strict_limit", "")
	}
	return func() error {
		var errs []error
		for _, v := range slices.Backward(undo) {
			errs = append(errs, v())
		}
		undo = nil
		return errors.Join(errs...)
	}
}
