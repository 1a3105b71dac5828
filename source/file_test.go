package source_test

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"updater/source"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file, fifo, link := filepath.Join(dir, "a file%.bmap"), filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("map"), 0o600), os.Symlink(fifo, link)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skipf("no FIFO here: %v", err)
	}
	address := (&url.URL{Scheme: "file", Path: file}).String()
	for _, name := range []string{file, address, strings.Replace(address, "file://", "FILE:", 1), strings.Replace(address, "file://", "file://localhost", 1)} {
		if data, err := source.ReadFile(name, 3); err != nil || string(data) != "map" {
			t.Errorf("ReadFile(%s) = %q, %v", name, data, err)
		}
	}
	for name, want := range map[string]string{
		fifo: "is a FIFO", link: "is a FIFO", "/dev/null": "is a character device", dir: "is a directory", file: "longer than 2 bytes",
		"file://host/x": `host "host"`, "file:x": "no such file", "file:///x?y": "invalid file: address", "file:///%zz": "invalid file: address",
	} {
		done := make(chan error, 1)
		go func() { _, err := source.ReadFile(name, 2); done <- err }()
		select {
		case err := <-done:
			_, isKind := errors.AsType[*source.KindError](err)
			if err == nil || !strings.Contains(err.Error(), want) || isKind != strings.HasPrefix(want, "is a ") {
				t.Errorf("ReadFile(%s) = %v; want %q", name, err, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("ReadFile(%s) hangs", name)
		}
	}
	if _, err := source.ReadFile("ssh://host/x", 10); err == nil {
		t.Error("ssh: is read")
	} else if e, ok := errors.AsType[*source.SchemeError](err); !ok || e.Scheme != "ssh" {
		t.Errorf("ReadFile of ssh: %v", err)
	}
}

// A file: address is found and opened as its path is.
func TestFileAddress(t *testing.T) {
	dir, data := t.TempDir(), sample(1000)
	image := filepath.Join(dir, "x.img")
	if err := errors.Join(os.WriteFile(image, data, 0o600), os.WriteFile(image+".bmap", nil, 0o600), os.WriteFile(image+".bmap.sig", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	bmap, err := source.FindBmap("file://" + image)
	if err != nil || bmap != image+".bmap" {
		t.Errorf("FindBmap = %s, %v", bmap, err)
	}
	if sig, found := source.FindSignature("file://" + bmap); !found || sig != bmap+".sig" {
		t.Errorf("FindSignature = %s, %v", sig, found)
	}
	img, err := source.Open("file://"+image, nil, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got, err := io.ReadAll(img); err != nil || !bytes.Equal(got, data) || img.Name() != image {
		t.Errorf("%s: %d bytes, %v", img.Name(), len(got), err)
	}
	for _, name := range []string{"ftp://h/x.img", "ssh:h/x.img", "http://h/x"} {
		_, err := source.Open(name, nil, source.Limits{})
		if _, ok := errors.AsType[*source.SchemeError](err); !ok {
			t.Errorf("Open(%s) = %v; want a SchemeError", name, err)
		}
	}
}
