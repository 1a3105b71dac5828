package sdboot_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"updater/boot/boottest"
	"updater/boot/sdboot"
)

// TestFolderFails: a failure of the file system is an error with its cause, and leaves no file open. A FIFO accepts content, but can neither
// be flushed nor dropped from a cache; a link that leaves the ESP cannot be opened.
func TestFolderFails(t *testing.T) {
	dir := t.TempDir()
	if err := boottest.WriteFiles(dir, map[string]string{"loader/updater/A.conf": template, "file": "", "EFI/Linux/x/y": ""}); err != nil {
		t.Fatal(err)
	}
	if _, err := sdboot.OpenFolder(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenFolder of a missing folder = %v; want ErrNotExist", err)
	}
	entries := filepath.Join(dir, "loader/entries")
	become := func(make func() error) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(entries), make()); err != nil {
			t.Fatal(err)
		}
	}
	become(func() error { return unix.Mkfifo(entries, 0o600) })
	fifo, err := os.OpenFile(entries, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	f, _ := openFolder(t, dir)
	list := func() error { _, err := f.List(); return err }
	open := func(name string) func() error { return func() error { _, err := f.Open(name); return err } }
	free := func() error { _, err := f.Free(); return err }
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes files
	before := boottest.OpenFiles(t)
	fails := func(what string, do func() error, words string) {
		t.Helper()
		if err := do(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s = %v; want %q", what, err, words)
		}
		if n := boottest.OpenFiles(t); n != before {
			t.Errorf("%s: %d files are open; want %d", what, n, before)
		}
	}
	fails("List of a FIFO", list, "loader/entries: not a directory")
	fails("Sync of a FIFO", f.Sync, "sync")
	fails("Open of a FIFO", open("loader/entries"), "dropping the cache of loader/entries: illegal seek")
	fails("Write to a FIFO", func() error { return f.Write("loader/entries", strings.NewReader("x")) }, "sync")
	if n, err := fifo.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("before the flush %d bytes were written, %v; want 1", n, err)
	}
	fails("Open of a missing file", open("loader/entries/x.conf"), "openat loader/entries/x.conf")
	fails("Write of a folder", func() error { return f.Write("EFI/Linux/x", strings.NewReader("x")) }, "EFI/Linux/x: is a directory")
	fails("Write below a file", func() error { return f.Write("file/x", strings.NewReader("x")) }, "file")
	unreadable := iotest.ErrReader(boottest.ErrInjected)
	fails("Write of what cannot be read", func() error { return f.Write("EFI/Linux/z", unreadable) }, boottest.ErrInjected.Error())
	become(func() error { return os.Symlink("/", entries) })
	fails("List of a link", list, "loader/entries: path escapes")
	fails("Sync of a link", f.Sync, "loader/entries: path escapes")
	become(func() error { return os.Mkdir(entries, 0o700) })
	for what, do := range map[string]func() error{"List": list, "Sync": f.Sync, "Free": free} {
		if err := do(); err != nil || boottest.OpenFiles(t) != before {
			t.Errorf("%s = %v, and %d files are open; want %d", what, err, boottest.OpenFiles(t), before)
		}
	}
	f.Close()
	before = boottest.OpenFiles(t)
	fails("Free of a closed folder", free, "closed")
}
