package abdisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/therootcompany/xz"
)

// Vmlinux unpacks the kernel from its bzImage, so that QEMU starts it directly (PVH): half of a boot's time without KVM is firmware and
// unpacking. The payload's place is in the header (Documentation/arch/x86/boot.rst, payload_offset).
func (b *Builder) Vmlinux(ctx context.Context) (string, error) {
	k, err := b.Kernel(ctx)
	if err != nil {
		return "", err
	}
	path := b.path("vmlinux")
	return path, b.cached(path, func() error {
		image, err := os.ReadFile(k.Image)
		if err != nil {
			return err
		}
		elf, err := unpackBzImage(image)
		if err != nil {
			return fmt.Errorf("%s: %w", k.Image, err)
		}
		return os.WriteFile(path, elf, 0o644)
	}, k.Version)
}

func unpackBzImage(image []byte) ([]byte, error) {
	if len(image) < 0x260 || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("is no bzImage")
	}
	setup := int(image[0x1f1])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*512 + int(binary.LittleEndian.Uint32(image[0x248:]))
	end := start + int(binary.LittleEndian.Uint32(image[0x24c:]))
	if start > end || end > len(image) {
		return nil, errors.New("the payload is outside the image")
	}
	r, err := xz.NewReader(bytes.NewReader(image[start:end]), 0)
	if err != nil {
		return nil, err
	}
	elf, err := io.ReadAll(r) // the size behind the stream is an error after the last byte
	if len(elf) < 1<<20 || !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return nil, fmt.Errorf("the payload is no xz-compressed ELF file: %w", err)
	}
	return elf, nil
}
