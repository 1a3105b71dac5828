package abdisk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"
)

// epoch is the modification time of every file in an image: the same bytes whenever they are built.
const epochString = "1767225600"

var epoch = time.Unix(1767225600, 0).UTC()

// cached builds the artefact at path with build, unless it exists and was made from the same inputs. build must not leave a complete
// artefact at path when it fails. inputs are all texts that determine the content; files enter by their fileSum.
func (b *Builder) cached(path string, build func() error, inputs ...string) error {
	h := sha256.New()
	for _, s := range inputs {
		fmt.Fprintf(h, "%d:%s\n", len(s), s)
	}
	want := hex.EncodeToString(h.Sum(nil))
	stamp := path + ".stamp"
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	os.Remove(stamp)
	start := time.Now()
	if err := build(); err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	if b.Log != nil {
		fmt.Fprintf(b.Log, "built %s in %.1f s\n", path, time.Since(start).Seconds())
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}

// fileSum returns the sha256 of a file as hex.
func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
