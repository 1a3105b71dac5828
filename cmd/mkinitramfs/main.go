// Command mkinitramfs packs the updater's initramfs on the host. make initramfs calls it.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"updater/initramfs/build"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkinitramfs: error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o build.Options
	var out, modules string
	f := flag.NewFlagSet("mkinitramfs", flag.ContinueOnError)
	f.StringVar(&o.Init, "init", "", "u-root's init `FILE`, static")
	f.StringVar(&o.Updater, "updater", "", "updater `FILE`, static")
	f.Func("keyring", "certificate `PATH`, a file or folder; may be repeated", func(s string) error {
		o.Keyring = append(o.Keyring, s)
		return nil
	})
	f.StringVar(&o.Config, "config", "", "configuration `FILE`")
	f.StringVar(&o.ModulesRoot, "modules-root", "/", "`FOLDER` above lib/modules")
	f.StringVar(&o.KernelVersion, "kernel-version", "", "kernel `RELEASE` whose modules are packed")
	f.StringVar(&modules, "modules", "", "module `NAMES`, separated by commas")
	f.StringVar(&o.Compress, "compress", "zstd", "zstd or none")
	f.StringVar(&out, "o", "", "archive `FILE` to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.Init == "" || o.Updater == "" || out == "" || f.NArg() > 0 {
		return errors.New("-init, -updater and -o are required, and there are no other arguments")
	}
	o.Modules = strings.Split(modules, ",")
	return write(out, o)
}

// write packs into a temporary file and renames it, so that no half archive is left behind.
func write(out string, o build.Options) (err error) {
	f, err := os.Create(out + ".tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(build.Write(w, o), w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}
