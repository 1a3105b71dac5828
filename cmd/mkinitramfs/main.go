// Command mkinitramfs packs the updater's initramfs on the host. make initramfs calls it.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
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
	var out, report, modules string
	f := flag.NewFlagSet("mkinitramfs", flag.ContinueOnError)
	f.StringVar(&o.Init, "init", "", "u-root's init `FILE`, static")
	f.StringVar(&o.Updater, "updater", "", "updater `FILE`, static")
	f.Func("keyring", "certificate `PATH`, a file or folder; may be repeated", func(s string) error {
		o.Keyring = append(o.Keyring, s)
		return nil
	})
	f.StringVar(&o.Config, "config", "", "configuration `FILE`")
	f.Func("policy", "further `FILE` for etc/updater, such as certificates that the configuration names; may be repeated", func(s string) error {
		o.Policy = append(o.Policy, s)
		return nil
	})
	f.StringVar(&o.ModulesRoot, "modules-root", "/", "`FOLDER` above lib/modules and lib/firmware")
	f.StringVar(&o.Kernel, "kernel", "", "kernel image `FILE` that will run it; its release is checked")
	f.StringVar(&o.KernelVersion, "kernel-version", "", "kernel `RELEASE` whose modules are packed (default: that of -kernel)")
	f.StringVar(&modules, "modules", "", "module `NAMES`, separated by commas; sets: "+strings.Join(slices.Sorted(maps.Keys(build.Sets)), ", "))
	f.StringVar(&o.Compress, "compress", "zstd", "zstd, xz or none")
	f.StringVar(&report, "report", "", "`FILE` for the report of what went in and why; standard output gets the parts")
	f.StringVar(&out, "o", "", "archive `FILE` to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.Init == "" || o.Updater == "" || out == "" || f.NArg() > 0 {
		return errors.New("-init, -updater and -o are required, and there are no other arguments")
	}
	o.Modules = strings.Split(modules, ",")
	r, err := write(out, o)
	if err != nil {
		return err
	}
	if report == "" {
		return r.PrintParts(os.Stdout)
	}
	var text bytes.Buffer
	return errors.Join(r.PrintParts(os.Stdout), r.Print(&text), os.WriteFile(report, text.Bytes(), 0o644))
}

// write packs into a temporary file and renames it, so that no half archive is left behind.
func write(out string, o build.Options) (_ *build.Report, err error) {
	f, err := os.Create(out + ".tmp")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	report, err := build.Write(w, o)
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		return nil, err
	}
	return report, os.Rename(f.Name(), out)
}
