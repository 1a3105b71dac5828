package tryboot

import (
	"errors"
	"io/fs"
	"os"
)

// File is the [Flag] of a disk image: a file that exists while the flag is set. The program that acts as the firmware removes it before it boots a
// slot.
type File struct{ Path string }

// Get implements [Flag].
func (f File) Get() (bool, error) {
	_, err := os.Lstat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Set implements [Flag].
func (f File) Set(on bool) error {
	if on {
		return os.WriteFile(f.Path, nil, 0o644)
	}
	if err := os.Remove(f.Path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Held is the [Flag] of a disk that no firmware has booted. It lasts as long as the program.
type Held bool

// Get implements [Flag].
func (h *Held) Get() (bool, error) { return bool(*h), nil }

// Set implements [Flag].
func (h *Held) Set(on bool) error { *h = Held(on); return nil }
