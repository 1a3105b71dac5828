package build

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report lists the contents of an archive.
type Report struct {
	Release  string // kernel release; "" without modules
	Parts    []Part
	Modules  []Module
	BuiltIn  []string // requested modules that are built into the kernel
	LeftOut  []string // members of sets that the kernel does not have
	Firmware []Firmware
}

// Part is a group of files of an archive.
type Part struct {
	Name   string
	Bytes  int64 // uncompressed
	Packed int64 // compressed alone; within the whole archive it may be smaller
}

// Module is a packed module.
type Module struct {
	Name  string
	Bytes int64  // uncompressed
	Why   string // reason for which it was packed
}

// Firmware is a file listed by a packed module.
type Firmware struct {
	Name   string
	Bytes  int64
	Module string
	Found  bool
}

// Total is the compressed size of all parts except modules and firmware, in bytes. The size budget applies to it.
func (r *Report) Total() int64 {
	var sum int64
	for _, p := range r.Parts {
		if p.Name != partModules && p.Name != partFirmware {
			sum += p.Packed
		}
	}
	return sum
}

// PrintParts writes a table of the parts and their sizes.
func (r *Report) PrintParts(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "part\tKiB\tpacked\n")
	for _, p := range r.Parts {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\n", p.Name, kib(p.Bytes), kib(p.Packed))
	}
	fmt.Fprintf(t, "without modules and firmware\t\t%.1f of %d\n", kib(r.Total()), budget>>10)
	return t.Flush()
}

// budget is the largest size of an initramfs without modules and firmware, in bytes.
const budget = 6<<20 + 512<<10

// Print writes a table of modules and firmware.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Release != "" {
		fmt.Fprintf(t, "modules of kernel %s\tKiB\twhy\n", r.Release)
	}
	for _, m := range r.Modules {
		fmt.Fprintf(t, "%s\t%.1f\t%s\n", m.Name, kib(m.Bytes), m.Why)
	}
	for _, f := range r.Firmware {
		how := fmt.Sprintf("%.1f", kib(f.Bytes))
		if !f.Found {
			how = "not found"
		}
		fmt.Fprintf(t, "firmware %s\t%s\tlisted by %s\n", f.Name, how, f.Module)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.printLeft(w)
}

func (r *Report) printLeft(w io.Writer) error {
	for _, l := range []struct {
		what string
		list []string
	}{{"built into the kernel", r.BuiltIn}, {"members of sets this kernel does not have", r.LeftOut}} {
		if len(l.list) == 0 {
			continue
		}
		slices.Sort(l.list)
		if _, err := fmt.Fprintf(w, "%s: %s\n", l.what, strings.Join(slices.Compact(l.list), " ")); err != nil {
			return err
		}
	}
	return nil
}

func kib(n int64) float64 { return float64(n) / 1024 }
