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
// disk. It returns what puts the old values back; what cannot be set is left alone.
func limitDirty(sysfs string, bytes int64) (restore func() error) {
	bdi := filepath.Join(sysfs, "bdi")
	var undo []func() error
	// set writes a value and remembers what keep held, which may tell the same more exactly.
	set := func(name, value, keep string) bool {
		old, err := os.ReadFile(filepath.Join(bdi, keep))
		if err != nil || os.WriteFile(filepath.Join(bdi, name), []byte(value), 0) != nil {
			return false
		}
		undo = append(undo, func() error {
			return os.WriteFile(filepath.Join(bdi, keep), []byte(strings.TrimSpace(string(old))), 0)
		})
		return true
	}
	// max_bytes is kept as a share of the memory, which max_ratio_fine gives as it is.
	if !set("strict_limit", "1", "strict_limit") || !set("max_bytes", strconv.FormatInt(bytes, 10), "max_ratio_fine") {
		set("max_ratio", "1", "max_ratio")
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
