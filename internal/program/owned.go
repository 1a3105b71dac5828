package program

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Owned refuses a program that a user other than root and the user of this process could have put in its place: the program, the links to
// it, and every folder above must belong to one of the two, and nobody else may write them. Others may write a sticky folder, such as /tmp.
func Owned(name string) error {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	if err := ownedFile(real); err != nil {
		return err
	}
	for _, path := range []string{filepath.Clean(name), real} {
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
			if err := ownedFile(dir); err != nil {
				return err
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return nil
}

func ownedFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !ok || info.IsDir() && mode&fs.ModeSticky != 0:
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, expected root", path, st.Uid)
	case mode.Perm()&0o002 != 0, mode.Perm()&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid():
		return fmt.Errorf("%s has mode %04o, so others may write it; expected 0755 or less", path, mode.Perm())
	}
	return nil
}
