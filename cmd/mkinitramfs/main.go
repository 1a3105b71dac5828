// Command mkinitramfs packs the initramfs of the updater on the host. It is run by make initramfs.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"updater/initramfs/build"
	"updater/internal/atomicfile"
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
	f.StringVar(&o.Init, "init", "", "statically linked `FILE` of u-root's init")
	f.StringVar(&o.Updater, "updater", "", "statically linked updater `FILE`")
	f.Func("keyring", "`PATH` of a certificate file or a directory of them; may be repeated", func(s string) error {
		o.Keyring = append(o.Keyring, s)
		return nil
	})
	f.StringVar(&o.Config, "config", "", "configuration `FILE`")
	f.Func("policy", "further `FILE` for etc/updater, such as certificates named in the configuration; may be repeated", func(s string) error {
		o.Policy = append(o.Policy, s)
		return nil
	})
	f.StringVar(&o.ModulesRoot, "modules-root", "/", "`DIRECTORY` with lib/modules and lib/firmware")
	f.StringVar(&o.Kernel, "kernel", "", "image `FILE` of the kernel that will run the initramfs, to check its release")
	f.StringVar(&o.KernelVersion, "kernel-version", "", "kernel `RELEASE` of the modules (default: that of -kernel)")
	f.StringVar(&modules, "modules", "", "comma-separated `NAMES` of modules or sets; sets: "+strings.Join(slices.Sorted(maps.Keys(build.Sets)), ", "))
	f.StringVar(&o.Compress, "compress", "zstd", "compression: zstd, xz or none")
	f.StringVar(&report, "report", "", "`FILE` for a report of modules and firmware; sizes go to standard output")
	f.StringVar(&out, "o", "", "output `FILE`")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.Init == "" || o.Updater == "" || out == "" || f.NArg() > 0 {
		return errors.New("expected -init, -updater and -o, and no arguments after the flags")
	}
	o.Modules = strings.Split(modules, ",")
	if err := check(o); err != nil {
		return err
	}
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

// write replaces out durably, or leaves it unchanged on an error.
func write(out string, o build.Options) (report *build.Report, err error) {
	err = atomicfile.WriteFunc(out, 0o644, func(f io.Writer) error {
		w := bufio.NewWriterSize(f, 1<<20)
		if report, err = build.Write(w, o); err != nil {
			return err
		}
		return w.Flush()
	})
	return report, err
}
