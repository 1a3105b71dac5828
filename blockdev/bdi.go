package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// limitDirty asks the kernel to write dirty pages of the disk out early: strict_limit and max_bytes (Linux 6.2 and
// later), else a max_ratio of 1 per cent (Documentation/ABI/testing/sysfs-class-bdi). sysfs is the folder of the
// disk. It returns what puts the old values back; what cannot be set is left alone.
func limitDirty(sysfs string, bytes int64) (restore func() error) {
	bdi := filepath.Join(sysfs, "bdi")
	var undo []func() error
	set := func(name, value string) bool {
		path := filepath.Join(bdi, name)
		old, err := os.ReadFile(path)
		if err != nil || os.WriteFile(path, []byte(value), 0) != nil {
			return false
		}
		undo = append(undo, func() error { return os.WriteFile(path, []byte(strings.TrimSpace(string(old))), 0) })
		return true
	}
	if !set("strict_limit", "1") || !set("max_bytes", strconv.FormatInt(bytes, 10)) {
		set("max_ratio", "1")
	}
	return func() error {
		var errs []error
		for i := len(undo) - 1; i >= 0; i-- {
			errs = append(errs, undo[i]())
		}
		undo = nil
		return errors.Join(errs...)
	}
}
