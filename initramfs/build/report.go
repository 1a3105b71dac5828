package build

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report says what went in and why.
type Report struct {
	Release  string // of the kernel; "" without modules
	Parts    []Part
	Modules  []Module
	BuiltIn  []string // asked for, and in the kernel itself
	LeftOut  []string // members of sets that this kernel does not have
	Firmware []Firmware
}

// Part is one of the pieces of an archive.
type Part struct {
	Name   string
	Bytes  int64 // unpacked
	Packed int64 // compressed by itself; the whole may be a little smaller
}

// Module is a packed module.
type Module struct {
	Name  string
	Bytes int64 // unpacked
	Why   string
}

// Firmware is a file that a packed module names.
type Firmware struct {
	Name   string
	Bytes  int64
	Module string
	Found  bool
}

// Total is the size of all parts but modules and firmware, compressed: what the budget is for.
func (r *Report) Total() int64 {
	var sum int64
	for _, p := range r.Parts {
		if p.Name != partModules && p.Name != partFirmware {
			sum += p.Packed
		}
	}
	return sum
}

// PrintParts writes the sizes of the parts for people.
func (r *Report) PrintParts(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "part\tKiB\tpacked\n")
	for _, p := range r.Parts {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\n", p.Name, kib(p.Bytes), kib(p.Packed))
	}
	fmt.Fprintf(t, "without modules and firmware\t\t%.1f of %d\n", kib(r.Total()), budget>>10)
	return t.Flush()
}

// budget is what an initramfs may take without modules and firmware, in bytes.
const budget = 6 << 20

// Print writes modules and firmware with their reasons for people.
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
		fmt.Fprintf(t, "firmware %s\t%s\tnamed by %s\n", f.Name, how, f.Module)
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
	}{{"built into the kernel", r.BuiltIn}, {"of the sets, this kernel does not have", r.LeftOut}} {
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
