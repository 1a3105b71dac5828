package source_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/source"
)

// archives are files in unsupported containers, by the name of the container.
func archives(t testing.TB) map[string][]byte {
	t.Helper()
	data := sample(100_000)
	var z, tarball, old bytes.Buffer
	zw := zip.NewWriter(&z)
	w, err := zw.Create("image.img")
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, zw.Close()); err != nil {
		t.Fatal(err)
	}
	for out, format := range map[*bytes.Buffer]tar.Format{&tarball: tar.FormatPAX, &old: tar.FormatGNU} {
		tw := tar.NewWriter(out)
		err := tw.WriteHeader(&tar.Header{Name: "image.img", Size: int64(len(data)), Mode: 0o644, Format: format})
		if err == nil {
			_, err = tw.Write(data)
		}
		if err = errors.Join(err, tw.Close()); err != nil {
			t.Fatal(err)
		}
	}
	v7 := old.Bytes() // without its magic, and the sum to match
	sum := 0
	for i := range v7[:512] {
		if i >= 257 && i < 265 {
			v7[i] = 0
		}
		if i >= 148 && i < 156 {
			sum += ' '
		} else {
			sum += int(v7[i])
		}
	}
	copy(v7[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	pad := func(magic string) []byte { return append([]byte(magic), data...) }
	return map[string][]byte{
		"zip": z.Bytes(), "tar": tarball.Bytes(), "tar, of 1979": v7,
		"lzma":                 compress(t, data, "xz", "-c", "--format=lzma"),
		"legacy lz4":           compress(t, data, "lz4", "-c", "-l"),
		"lzop":                 pad("\x89LZO\x00\r\n\x1a\n"),
		"7z":                   pad("7z\xbc\xaf\x27\x1c\x00\x04"),
		"Android sparse image": pad("\x3a\xff\x26\xed\x01\x00\x00\x00\x1c\x00\x0c\x00"),
		"qcow2":                pad("QFI\xfb\x00\x00\x00\x03"),
		"XML document":         pad("<?xml version=\"1.0\"?><bmap/>"),
	}
}

// A container that is not supported is refused by name: as a file, as a stream, from a server, and inside a compression.
func TestContainers(t *testing.T) {
	noLeak(t)
	c := client(t, source.HTTPOptions{})
	refused := func(what, name string, img *source.Image, err error) {
		t.Helper()
		if err == nil {
			_, err = io.Copy(io.Discard, img)
			img.Close()
		}
		if e, ok := errors.AsType[*source.ContainerError](err); !ok || !strings.Contains(e.Container, name) {
			t.Errorf("%s: %v; want a ContainerError of %s", what, err, name)
		}
	}
	for name, data := range archives(t) {
		container, _, _ := strings.Cut(name, ",")
		path := filepath.Join(t.TempDir(), "image.img")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := source.Open(path, nil, source.Limits{})
		refused("file", container, img, err)
		img, err = source.NewImage(bytes.NewReader(data), "image", source.Limits{})
		refused("stream", container, img, err)
		img, err = c.Open(t.Context(), serve(t, data, nil).URL, source.Limits{})
		refused("server", container, img, err)
		for _, codec := range []string{"gzip", "zstd", "xz", "lz4", "bzip2"} {
			img, err := source.NewImage(bytes.NewReader(compress(t, data, codec, "-c")), "image", source.Limits{})
			refused(codec, container, img, err)
		}
	}
}

// Formats that a slot may hold are no containers.
func TestNoContainers(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"ext4": {"mkfs.ext4", "-q"}, "vfat": {"mkfs.vfat"}, "swap": {"mkswap"}, "gpt": {"sgdisk", "-o"},
	} {
		program, err := exec.LookPath(args[0])
		if err != nil {
			if program = "/usr/sbin/" + args[0]; !exists(program) {
				continue
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program, append(args[1:], path)...).CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", program, err, out)
			continue
		}
		img, err := source.Open(path, nil, source.Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if img.Codec() != "raw" {
			t.Errorf("%s: codec %s", name, img.Codec())
		}
		img.Close()
	}
	for name, head := range map[string]string{
		"squashfs": "hsqs\x02\x00\x00\x00", "LUKS": "LUKS\xba\xbe\x00\x02", "newc": "070701000002D1", "Android boot": "ANDROID!", "zeros": strings.Repeat("\x00", 600),
		"FIT": "\xd0\x0d\xfe\xed", "nothing": "", "text": "hello", "erofs": strings.Repeat("\x00", 1024) + "\xe2\xe1\xf5\xe0", "FAT": "\xeb\x58\x90mkfs.fat",
	} {
		img, err := source.NewImage(strings.NewReader(head), name, source.Limits{})
		if err != nil || img.Codec() != "raw" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A skippable frame at the start may be that of a zstd or of an lz4 file.
func TestSkippableFrameFirst(t *testing.T) {
	data := sample(10_000)
	skippable := "\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
	for codec, want := range map[string]string{"zstd": "zstd", "lz4": "lz4"} {
		packed := append([]byte(skippable+skippable), compress(t, data, codec, "-c")...)
		img, err := source.NewImage(bytes.NewReader(packed), "image", source.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		got, err := io.ReadAll(img)
		if err != nil || !bytes.Equal(got, data) || img.Codec() != want {
			t.Errorf("%s: %s, %d bytes, %v", codec, img.Codec(), len(got), err)
		}
		img.Close()
	}
}
