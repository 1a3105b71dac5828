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

// PolicyDir is the directory of keyring and configuration, relative to the root.
const PolicyDir = "etc/updater"

// Limits of PolicyDir, in bytes and files.
const (
	maxPolicy      = 16 << 20
	maxPolicyFiles = 1000
)

// unsealed is the digest field of a binary without a seal.
const unsealed = "0000000000000000000000000000000000000000000000000000000000000000"

// seal ends with the digest of [PolicyDir]. Package build replaces the zeros in the linked binary. It is a variable, so that the
// text occurs once in the binary and the compiler derives nothing from it.
var seal = "updater-policy-seal:0000000000000000000000000000000000000000000000000000000000000000"

func stamped() string { return seal[len(seal)-len(unsealed):] }

// Sealed reports whether keyring and configuration were fixed when the initramfs was packed.
func Sealed() bool { return stamped() != unsealed }

// CheckSeal compares PolicyDir below root with the seal. It returns nil if they match or the binary is not sealed. An archive
// appended to the initramfs, whose files take precedence, can therefore neither add nor change a key. It can still replace the
// program itself; only a signature over the whole initramfs prevents that.
func CheckSeal(root string) error {
	if !Sealed() {
		return nil
	}
	files, err := readPolicy(root)
	if err != nil {
		return fmt.Errorf("comparing /%s with its seal: %w", PolicyDir, err)
	}
	if PolicyDigest(files) != stamped() {
		return fmt.Errorf("/%s differs from the keyring and configuration packed into this initramfs; files found: %s",
			PolicyDir, strings.Join(sortedNames(files), ", "))
	}
	return nil
}

// PolicyDigest returns the SHA-256 over names and contents in lower-case hexadecimal. Names are relative to the root of the
// archive.
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

// readPolicy reads every file of PolicyDir. It refuses everything but files and directories, which could change later.
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
			return fmt.Errorf("/%s is neither a regular file nor a directory", name)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if total += info.Size(); total > maxPolicy || len(files) == maxPolicyFiles {
			return fmt.Errorf("/%s exceeds %d bytes or %d files", PolicyDir, maxPolicy, maxPolicyFiles)
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // an empty policy never matches a seal
	}
	return files, err
}
