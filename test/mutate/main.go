// Command mutate measures how well the tests cover the dangerous core: it changes the code in one place at a time and
// reports the changes that no test notices.
//
// Operators: negated and shifted comparisons, && for ||, ignored and unreturned errors, dropped statements, neighbours in the other order.
// All mutants of a package are compiled at once, and each runs the tests that reach it, the fastest first, until one fails or a time limit
// expires. The tests of a package are its own. Mutated programs run as nobody: they must not write to a disk of this machine.
//
// Survivors are listed in a file, one a line, with the reason why they may survive: KEY => REASON. A survivor that is not in the file fails
// the run. A budget bounds the time; the seed decides which mutants it leaves out.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// module is the prefix of the packages.
const module = "updater/"

// nobody is the user of mutated programs, and their memory limit in KiB of address space: a loop may append for ever.
const (
	nobody    = 65534
	maxMemory = 8 << 20
)

// maxTrial bounds the processor time that the tests of one mutant take without it: a busy machine leaves out no more than a quiet one.
const maxTrial = 20 * time.Second

// testedBy names further packages whose tests count for a package.
var testedBy = map[string][]string{
	"boot":        {"boot", "boot/grub", "boot/uboot", "boot/android"},
	"boot/grub":   {"boot/grub", "boot"},
	"boot/scheme": {"boot/scheme", "boot/grub", "boot/uboot", "boot/barebox", "boot/android", "boot/gpt"},
}

func main() {
	budget := flag.Duration("budget", 100*time.Minute, "`TIME` for all mutants, behind the preparation")
	jobs := flag.Int("j", 2, "programs at a time")
	seed := flag.String("seed", "", "`TEXT` that selects the mutants within the budget")
	only := flag.String("run", "", "try only the mutants whose line matches `REGEXP`")
	list := flag.String("survivors", "test/mutate/survivors.txt", "`FILE` of known survivors")
	verbose := flag.Bool("v", false, "print every mutant")
	flag.Parse()
	if err := run(flag.Args(), options{*budget, *jobs, *seed, *only, *list, *verbose}); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	budget     time.Duration
	jobs       int
	seed, only string
	survivors  string
	verbose    bool
}

func run(packages []string, o options) error {
	known, err := readSurvivors(o.survivors)
	if err != nil {
		return err
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	var all []*trial
	for _, p := range packages {
		trials, err := prepare(p, filepath.Join(dir, strings.ReplaceAll(p, "/", "-")))
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, t := range trials {
			if only.MatchString(t.key) {
				all = append(all, t)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *trial) int { return cmp.Compare(order(o.seed, a), order(o.seed, b)) })
	end := time.Now().Add(o.budget)
	var wg sync.WaitGroup
	work := make(chan *trial)
	for range o.jobs {
		wg.Go(func() {
			for t := range work {
				if time.Now().Before(end) {
					t.run()
				}
				if o.verbose {
					fmt.Printf("%-8s %s\n", t.result, t.key)
				}
			}
		})
	}
	for _, t := range all {
		work <- t
	}
	close(work)
	wg.Wait()
	return report(packages, all, known)
}

// order makes a sequence of mutants that depends only on the seed.
func order(seed string, t *trial) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, t.key)
	return h.Sum64()
}

// readSurvivors reads the reasons of known survivors.
func readSurvivors(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, reason, ok := strings.Cut(strings.TrimSpace(line), " => ")
		switch {
		case key == "" || strings.HasPrefix(key, "#"):
		case !ok || reason == "":
			return nil, fmt.Errorf("%s: %q has no reason", path, key)
		default:
			known[key] = reason
		}
	}
	return known, nil
}

// report prints a line for each package, and the survivors without a reason, which are an error.
func report(packages []string, all []*trial, known map[string]string) error {
	bad := 0
	for _, p := range packages {
		count := map[string]int{}
		for _, t := range all {
			if t.pkg == p {
				if t.result == "survived" && known[t.key] != "" {
					t.result = "known"
				}
				count[cmp.Or(t.result, "left out")]++
			}
		}
		fmt.Printf("%-16s %v\n", p, count)
	}
	for _, t := range all {
		switch {
		case t.result == "survived":
			bad++
			fmt.Println(t.key, "=> ?")
		case t.result == "killed" && known[t.key] != "":
			fmt.Println("listed, but killed:", t.key)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d mutants survive without a reason", bad)
	}
	return nil
}

// test is one test of a compiled package.
type test struct {
	program, dir, name string
	took, cpu          time.Duration // without a mutant
}

// trial is a mutant with the tests that reach it.
type trial struct {
	*mutant
	tests  []test
	result string // killed, survived; "" is left out
}

// run runs the tests until one of them fails, or the remaining ones take too long.
func (t *trial) run() {
	t.result = "killed"
	slices.SortFunc(t.tests, func(a, b test) int { return cmp.Compare(a.cpu, b.cpu) })
	var cpu time.Duration
	for _, test := range t.tests {
		if cpu += test.cpu; cpu > maxTrial {
			break
		}
		if _, err := test.run(5*time.Second+4*test.cpu, 20*time.Second+8*test.took, fmt.Sprintf("MUTANT=%d", t.id)); err != nil {
			return
		}
	}
	t.result = "survived"
}

// run runs the test as nobody and returns its processor time. Both limits are generous: one ends a loop, the other one a wait, and a busy
// machine must not look like either. All processes that the test has started end with it.
func (t test) run(maxCPU, maxWait time.Duration, env ...string) (cpu time.Duration, err error) {
	ctx, stop := context.WithTimeout(context.Background(), maxWait)
	defer stop()
	dir, err := os.MkdirTemp(filepath.Dir(t.program), "run")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -v "$0"; ulimit -t "$1"; shift; exec nice -n 19 "$@"`,
		fmt.Sprint(maxMemory), fmt.Sprint(int(maxCPU.Seconds())), t.program, "-test.run", "^"+t.name+"$", "-test.failfast")
	cmd.Dir, cmd.Env = t.dir, append(os.Environ(), append(env, "TMPDIR="+dir, "HOME="+dir)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, out[max(0, len(out)-2000):])
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// prepare compiles a package with all its mutants, and runs every test once without any, to find the mutants that it reaches.
func prepare(pkg, tmp string) ([]*trial, error) {
	listed, err := exec.Command("go", "list", "-json=Dir,GoFiles", module+pkg).Output()
	if err != nil {
		return nil, err
	}
	var p struct {
		Dir     string
		GoFiles []string
	}
	if err := json.Unmarshal(listed, &p); err != nil {
		return nil, err
	}
	m := &mutator{pkg: pkg}
	files, err := m.mutate(p.Dir, p.GoFiles)
	if err != nil {
		return nil, err
	}
	overlay := map[string]map[string]string{"Replace": {}}
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return nil, err
	}
	for path, text := range files {
		overlay["Replace"][path] = filepath.Join(tmp, filepath.Base(path))
		if err := os.WriteFile(filepath.Join(tmp, filepath.Base(path)), text, 0o600); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(tmp, "overlay.json"), text, 0o600), os.Chmod(tmp, 0o777)); err != nil {
		return nil, err
	}
	trials := make([]*trial, len(m.mutants))
	for i, mutant := range m.mutants {
		trials[i] = &trial{mutant: mutant}
	}
	tested := testedBy[pkg]
	if tested == nil {
		tested = []string{pkg}
	}
	for _, by := range tested {
		if err := trace(by, filepath.Join(p.Dir, strings.Repeat("../", strings.Count(pkg, "/")+1), by), tmp, trials); err != nil {
			return nil, err
		}
	}
	return trials, nil
}

// trace compiles the tests of a package against the overlay and adds each to the mutants that it reaches.
func trace(pkg, dir, tmp string, trials []*trial) error {
	program := filepath.Join(tmp, strings.ReplaceAll(pkg, "/", "-")+".test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(tmp, "overlay.json"), "-o", program, module+pkg)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	list := exec.Command(program, "-test.list", "^(Test|Fuzz|Example)")
	list.Dir = dir
	names, err := list.Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(names)) {
		t := test{program: program, dir: dir, name: name}
		reached := filepath.Join(tmp, "reached")
		if err := errors.Join(os.WriteFile(reached, nil, 0o666), os.Chmod(reached, 0o666)); err != nil {
			return err
		}
		began := time.Now()
		if t.cpu, err = t.run(10*time.Minute, 10*time.Minute, "MUTANT_TRACE="+reached); err != nil {
			fmt.Fprintf(os.Stderr, "mutate: %s %s fails without a mutant and does not count: %v\n", pkg, name, err)
			continue
		}
		t.took = time.Since(began)
		ids, err := os.ReadFile(reached)
		if err != nil {
			return err
		}
		for id := range bytes.FieldsSeq(ids) {
			var n int
			if _, err := fmt.Sscan(string(id), &n); err == nil && n > 0 && n <= len(trials) && !slices.Contains(trials[n-1].tests, t) {
				trials[n-1].tests = append(trials[n-1].tests, t)
			}
		}
	}
	return nil
}
