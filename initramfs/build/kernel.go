package build

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxKernel bounds an unpacked kernel image, in bytes.
const maxKernel = 256 << 20

// KernelRelease returns the release of a kernel image, such as 6.1.0-56-amd64. It reads kernel_version of an x86 bzImage
// (kernel, Documentation/arch/x86/boot.rst), else the version banner of an uncompressed or gzip image.
func KernelRelease(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("kernel image: %w", err)
	}
	if release := bzImageRelease(data); release != "" {
		return release, nil
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err == nil {
			data, err = io.ReadAll(io.LimitReader(z, maxKernel))
		}
		if err != nil {
			return "", fmt.Errorf("kernel image %s: %w", path, err)
		}
	}
	const banner = "Linux version "
	for rest := data; ; {
		i := bytes.Index(rest, []byte(banner))
		if i < 0 {
			return "", fmt.Errorf("kernel image %s: no release found; name it with -kernel-version", path)
		}
		rest = rest[i+len(banner):]
		if release := firstWord(rest); release != "" && release[0] >= '0' && release[0] <= '9' {
			return release, nil
		}
	}
}

func bzImageRelease(data []byte) string {
	if len(data) < 0x210 || string(data[0x202:0x206]) != "HdrS" {
		return ""
	}
	at := int(binary.LittleEndian.Uint16(data[0x20e:])) + 0x200
	if at >= len(data) {
		return ""
	}
	return firstWord(data[at:])
}

// firstWord returns the text before the first space, NUL or newline if it is printable ASCII of at most 64 bytes, else "".
func firstWord(data []byte) string {
	word := string(data[:min(len(data), 65)])
	end := strings.IndexAny(word, " \x00\n")
	if end < 0 || strings.ContainsFunc(word[:end], func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return word[:end]
}
