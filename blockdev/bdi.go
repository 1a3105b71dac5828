package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// limitDirty makes the kernel write dirty pages of the disk out early, by strict_limit and max_bytes (Linux 6.2 and later) or a
// max_ratio of 1 per cent (Documentation/ABI/testing/sysfs-class-bdi). sysfs is the directory of the disk. restore sets the old
// values again. Limits that cannot be set are skipped. A saved share of 0 (some tools round down) would stall writeback;
// restore sets the kernel's default instead.
func limitDirty(sysfs string, bytes int64) (restore func() error) {
	bdi := filepath.Join(sysfs, "bdi")
	var undo []func() error
	// set writes a value and saves the one of keep, the same limit in a finer unit. all is the default of a share.
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
	// The kernel stores max_bytes as a share of the memory; max_ratio_fine is that share exactly. It refuses a limit above the
	// global one, which then suffices.
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
