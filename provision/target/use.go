package target

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// systemDirs are where a system mounts its own disk.
var systemDirs = []string{"/", "/usr", "/boot", "/boot/efi"}

// use is the use of a disk or of one of its partitions, "" for none. Devices on top of it, such as a volume or an array, are
// followed.
func (h Host) use(d *Disk) (string, error) {
	if d.name == "" {
		return h.loop(d.Path), nil
	}
	mounts, err := h.mounts()
	if err != nil {
		return "", err
	}
	swaps, err := h.swaps()
	if err != nil {
		return "", err
	}
	names := append([]string{d.name}, slices.Sorted(maps.Keys(d.parts))...)
	for _, name := range names {
		for _, on := range h.stack(name, nil) {
			devno := attribute(h.sys("class", "block", on, "dev"))
			if dirs := mounts[devno]; len(dirs) > 0 {
				if slices.ContainsFunc(dirs, func(dir string) bool { return slices.Contains(systemDirs, dir) }) {
					return fmt.Sprintf("it is the system disk: %s is mounted on %s", h.node(on), dirs[0]), nil
				}
				return fmt.Sprintf("%s is mounted on %s", h.node(on), dirs[0]), nil
			}
			if swaps[h.node(on)] {
				return fmt.Sprintf("%s is swapped on", h.node(on)), nil
			}
			if on != name {
				return fmt.Sprintf("%s is held by %s", h.node(name), on), nil
			}
		}
	}
	return "", nil
}

// loop is the loop device that holds a disk image, "" for none.
func (h Host) loop(image string) string {
	files, _ := filepath.Glob(h.sys("block", "loop*", "loop", "backing_file"))
	for _, file := range files {
		if attribute(file) == image {
			return fmt.Sprintf("%s is held by %s", image, filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return ""
}

// stack lists a block device and everything on top of it, the top first.
func (h Host) stack(name string, seen []string) []string {
	if slices.Contains(seen, name) {
		return nil
	}
	seen = append(seen, name)
	var list []string
	holders, _ := os.ReadDir(h.sys("class", "block", name, "holders"))
	for _, holder := range holders {
		list = append(list, h.stack(holder.Name(), seen)...)
	}
	return append(list, name)
}

// mounts maps major:minor to the mount points. A file system with a device number of its own (btrfs, overlay) is found by the
// source of its mount.
func (h Host) mounts() (map[string][]string, error) {
	data, err := os.ReadFile(h.proc("self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	mounts := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		// "36 35 98:0 /root /mountpoint options... - type source ..." (proc_pid_mountinfo(5))
		w := strings.Fields(line)
		dash := slices.Index(w, "-")
		if len(w) < 5 || dash < 0 || dash+2 >= len(w) {
			continue
		}
		dir := octal.Replace(w[4])
		mounts[w[2]] = append(mounts[w[2]], dir)
		if real, err := filepath.EvalSymlinks(octal.Replace(w[dash+2])); err == nil {
			if devno := attribute(h.sys("class", "block", filepath.Base(real), "dev")); devno != "" && devno != w[2] {
				mounts[devno] = append(mounts[devno], dir)
			}
		}
	}
	return mounts, nil
}

// octal decodes the escapes of the mount table.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// swaps lists the device nodes of swap space.
func (h Host) swaps() (map[string]bool, error) {
	data, err := os.ReadFile(h.proc("swaps"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, fmt.Errorf("reading the swap table: %w", err)
	}
	swaps := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if w := strings.Fields(line); len(w) > 0 {
			swaps[octal.Replace(w[0])] = true
		}
	}
	return swaps, nil
}
