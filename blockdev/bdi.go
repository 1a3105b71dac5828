package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// bdiNotes is the folder where a run notes the limits that it has changed, for the next run if this one is killed. Like the kernel's
// limits, the notes end with the next boot.
const bdiNotes = "/run/updater"

// bdiLimit is a value in the folder of a backing device (Documentation/ABI/testing/sysfs-class-bdi), and the value that is saved:
// the same limit in the finest unit.
type bdiLimit struct{ name, value, keep string }

// limitDirty makes the kernel write dirty pages of the disk out early, by strict_limit and max_bytes (Linux 6.2 and later) or a
// max_ratio of 1 per cent. sysfs is the directory of the disk, notes the one of the notes. restore sets the old values again, as
// [restoreDirty] does after a run that was killed. Limits that cannot be set are skipped.
func limitDirty(sysfs, notes string, bytes int64) (restore func() error) {
	bdi := filepath.Join(sysfs, "bdi")
	// The kernel stores max_bytes as a share of the memory; max_ratio_fine is that share exactly. It refuses a limit above the
	// global one, which then suffices.
	limits := []bdiLimit{{"max_bytes", strconv.FormatInt(bytes, 10), "max_ratio_fine"}, {"strict_limit", "1", "strict_limit"}}
	if _, err := os.Stat(filepath.Join(bdi, "max_bytes")); err != nil {
		limits = []bdiLimit{{"max_ratio", "1", "max_ratio"}}
	}
	var note strings.Builder
	for _, l := range limits {
		old, err := os.ReadFile(filepath.Join(bdi, l.keep))
		if err != nil {
			return func() error { return nil }
		}
		fmt.Fprintf(&note, "%s %s\n", l.keep, strings.TrimSpace(string(old)))
	}
	path := bdiNote(sysfs, notes)
	if errors.Join(os.MkdirAll(notes, 0o755), os.WriteFile(path+".new", []byte(note.String()), 0o600)) == nil {
		_ = os.Rename(path+".new", path) // without a note a run that is killed leaves its limits
	}
	for _, l := range limits {
		if os.WriteFile(filepath.Join(bdi, l.name), []byte(l.value), 0) != nil {
			break
		}
	}
	return func() error { return errors.Join(setNoted(bdi, note.String()), removeNote(path)) }
}

// restoreDirty restores the limits that a killed run has changed, by its note. It does nothing without a note.
func restoreDirty(sysfs, notes string) error {
	path := bdiNote(sysfs, notes)
	note, _ := os.ReadFile(path)
	return errors.Join(setNoted(filepath.Join(sysfs, "bdi"), string(note)), removeNote(path))
}

// bdiNote names the note of a disk. A disk that gets the name of another one has another sequence number (diskseq, Linux 5.15).
func bdiNote(sysfs, notes string) string {
	return filepath.Join(notes, "bdi-"+filepath.Base(sysfs)+"-"+sysText(sysfs, "diskseq"))
}

func removeNote(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// setNoted sets the values of a note, the last first. A saved share of 0 (some tools round down) would stall writeback; the kernel's
// default is set instead.
func setNoted(bdi, note string) error {
	defaults := map[string]string{"max_ratio": "100", "max_ratio_fine": "1000000", "strict_limit": "0"}
	var errs []error
	for _, line := range slices.Backward(slices.Collect(strings.Lines(note))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value == "0" {
			value = defaults[name]
		}
		if _, known := defaults[name]; known {
			errs = append(errs, os.WriteFile(filepath.Join(bdi, name), []byte(value), 0))
		}
	}
	return errors.Join(errs...)
}
