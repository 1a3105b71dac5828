package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Loader loads kernel modules from lib/modules/RELEASE, by the indexes that package build writes. Every
// module is loaded once. Safe for concurrent use.
type Loader struct {
	dir   string
	log   func(format string, a ...any)
	deps  map[string][]string // module to its file, then the files that it needs, nearest first
	soft  map[string]softdep  // by module
	alias []aliasLine

	mu      sync.Mutex
	tried   map[string]bool // files
	noMatch map[string]bool // modaliases without a module, for the report when a disk does not show up
}

type aliasLine struct{ pattern, module string }

// softdep are modules or aliases that are loaded before and after a module, when they are there.
type softdep struct{ pre, post []string }

// NewLoader reads the indexes below root for the running kernel. An initramfs without modules is fine: all
// drivers are built in then. Indexes of another kernel only are an error, since nothing would load.
func NewLoader(root string, log func(format string, a ...any)) (*Loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, os.NewSyscallError("uname", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	base := filepath.Join(root, "lib/modules")
	l := &Loader{
		dir: filepath.Join(base, release), log: log, deps: map[string][]string{}, soft: map[string]softdep{},
		tried: map[string]bool{}, noMatch: map[string]bool{},
	}
	if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
		if others, _ := filepath.Glob(base + "/*"); len(others) > 0 {
			return nil, fmt.Errorf("the modules are for kernel %s, but %s is running; build the initramfs for it", filepath.Base(others[0]), release)
		}
		return l, nil
	}
	err := errors.Join(
		l.read("modules.dep", func(w []string) {
			file := strings.TrimSuffix(w[0], ":")
			l.deps[moduleName(file)] = append([]string{file}, w[1:]...)
		}),
		l.read("modules.alias", func(w []string) {
			if len(w) == 3 && w[0] == "alias" {
				l.alias = append(l.alias, aliasLine{w[1], moduleName(w[2])})
			}
		}),
		l.read("modules.softdep", func(w []string) {
			if len(w) > 2 && w[0] == "softdep" {
				l.soft[moduleName(w[1])] = parseSoftdep(w[2:])
			}
		}),
	)
	return l, err
}

// read hands the words of each line of an index to take; lines that are empty or comments are left out.
func (l *Loader) read(name string, take func(words []string)) error {
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if w := strings.Fields(lines.Text()); len(w) > 0 && w[0] != "#" {
			take(w)
		}
	}
	return lines.Err()
}

// moduleName is the kernel's name of a module file: no folder, no endings, underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Load loads a module by name, or every module whose alias matches, with what it needs. A name that is
// neither is taken for built in.
func (l *Loader) Load(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load(name, 0)
}

func (l *Loader) load(name string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("module %s: its soft dependencies go in a circle", name)
	}
	modules := []string{moduleName(name)}
	if _, ok := l.deps[modules[0]]; !ok {
		modules = l.match(name)
	}
	var errs []error
	for _, m := range modules {
		files := l.deps[m]
		if len(files) == 0 || l.tried[files[0]] {
			continue
		}
		for _, s := range l.soft[m].pre {
			_ = l.load(s, depth+1) // optional by definition
		}
		// modules.dep lists the nearest dependency first; the farthest has to go in first.
		for _, file := range slices.Backward(files) {
			if err := l.insert(file); err != nil {
				errs = append(errs, err)
				break
			}
		}
		for _, s := range l.soft[m].post {
			_ = l.load(s, depth+1)
		}
	}
	return errors.Join(errs...)
}

// parseSoftdep reads "pre: a b post: c".
func parseSoftdep(words []string) (d softdep) {
	list := &d.pre
	for _, w := range words {
		switch w {
		case "pre:":
			list = &d.pre
		case "post:":
			list = &d.post
		default:
			*list = append(*list, w)
		}
	}
	return d
}

// match lists the modules whose alias matches a modalias.
func (l *Loader) match(modalias string) []string {
	var found []string
	for _, a := range l.alias {
		if fnmatch(a.pattern, modalias) && !slices.Contains(found, a.module) {
			found = append(found, a.module)
		}
	}
	if len(found) == 0 {
		l.noMatch[modalias] = true
	}
	return found
}

// fnmatch is fnmatch(3) without flags, as modprobe uses it: unlike path.Match, "*" matches a "/" too.
func fnmatch(pattern, s string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(s, "/", "\x01"))
	return ok && err == nil
}

// insert loads one file with finit_module(2). A module that is there already is a success, and one whose
// hardware is not there (ENODEV) is no failure.
func (l *Loader) insert(file string) error {
	if l.tried[file] {
		return nil
	}
	l.tried[file] = true
	f, err := os.Open(filepath.Join(l.dir, file))
	if err != nil {
		return fmt.Errorf("loading module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENODEV):
		l.log("module %s: no such hardware", moduleName(file))
		return nil
	}
	return fmt.Errorf("loading module %s: %w", moduleName(file), os.NewSyscallError("finit_module", err))
}

// Coldplug loads the modules of all devices that the kernel has found so far. Failures are logged: another
// device may still bring the disk.
func (l *Loader) Coldplug() {
	_ = filepath.WalkDir("/sys/devices", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil
		}
		if b, err := os.ReadFile(name); err == nil {
			l.plug(strings.TrimSpace(string(b)))
		}
		return nil
	})
	l.plug("sd_mod") // SCSI disks name their driver only once they were probed
}

// plug loads what a modalias asks for, and logs what fails.
func (l *Loader) plug(modalias string) {
	if modalias == "" {
		return
	}
	if err := l.Load(modalias); err != nil {
		l.log("%v", err)
	}
}

// Unmatched lists the modaliases that no packed module drives.
func (l *Loader) Unmatched() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for a := range l.noMatch {
		list = append(list, a)
	}
	slices.Sort(list)
	return list
}

// Modprobe is the kernel's request for a module or alias (kernel/module/kmod.c calls /sbin/modprobe -q -- NAME).
func Modprobe(name string) error {
	l, err := NewLoader("/", func(string, ...any) {})
	if err != nil {
		return err
	}
	return l.Load(name)
}
