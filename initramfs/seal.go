package initramfs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PolicyDir holds keyring and configuration, without leading slash.
const PolicyDir = "etc/updater"

// maxPolicy bounds what is read of PolicyDir, in bytes and in files.
const (
	maxPolicy      = 16 << 20
	maxPolicyFiles = 1000
)

// unsealed is the seal of a binary that nothing was stamped into.
const unsealed = "0000000000000000000000000000000000000000000000000000000000000000"

// seal ends with the digest of [PolicyDir] that package build stamps into the finished binary, in place of
// the zeros. It is a variable so that the text is in the binary once and nothing is derived from it.
var seal = "updater-policy-seal:0000000000000000000000000000000000000000000000000000000000000000"

func stamped() string { return seal[len(seal)-len(unsealed):] }

// Sealed reports whether keyring and configuration were fixed when the initramfs was packed.
func Sealed() bool { return stamped() != unsealed }

// CheckSeal compares PolicyDir below root with the seal. It returns nil when they agree and when the binary is not sealed. A
// second archive behind the initramfs, whose files win, can therefore neither change nor add a key; what it
// could still replace is this program, which only a signature over the whole initramfs prevents.
func CheckSeal(root string) error {
	if !Sealed() {
		return nil
	}
	files, err := readPolicy(root)
	if err != nil {
		return fmt.Errorf("comparing /%s with its seal: %w", PolicyDir, err)
	}
	if PolicyDigest(files) != stamped() {
		return fmt.Errorf("/%s is not what this initramfs was packed with: a key or the configuration was changed, added or removed; there are %s",
			PolicyDir, strings.Join(sortedNames(files), ", "))
	}
	return nil
}

// PolicyDigest is the sha256 over names and contents, as lower-case hexadecimal. Names are relative to the
// root of the archive.
func PolicyDigest(files map[string][]byte) string {
	h := sha256.New()
	add := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	for _, name := range sortedNames(files) {
		add([]byte(name))
		add(files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sortedNames(files map[string][]byte) []string {
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// readPolicy reads every file of PolicyDir. What is neither a file nor a folder could change later, and is
// refused.
func readPolicy(root string) (map[string][]byte, error) {
	files, total := map[string][]byte{}, int64(0)
	err := filepath.WalkDir(filepath.Join(root, PolicyDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("/%s is neither a file nor a folder", name)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if total += info.Size(); total > maxPolicy || len(files) == maxPolicyFiles {
			return fmt.Errorf("there are more than %d bytes or %d files", maxPolicy, maxPolicyFiles)
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing there differs from whatever was sealed
	}
	return files, err
}
