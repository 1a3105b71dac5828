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

// Loader loads kernel modules and their dependencies from lib/modules/RELEASE, using the indexes package build writes. It
// tries each module once. It is safe for concurrent use.
type Loader struct {
	dir   string
	log   func(format string, a ...any)
	deps  map[string][]string // by module: its file, then the files it depends on, nearest first
	soft  map[string]softdep  // by module
	alias []aliasLine

	mu      sync.Mutex
	tried   map[string]bool // files
	noMatch map[string]bool // modaliases without a module
}

type aliasLine struct{ pattern, module string }

// softdep lists the optional modules or aliases to load before and after a module.
type softdep struct{ pre, post []string }

// NewLoader reads the indexes of the running kernel below root. Without any modules the Loader does nothing: all drivers are
// built in. If only modules of other kernels exist, it returns an error.
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
			return nil, fmt.Errorf("the modules are for kernel %s, but %s is running; build the initramfs for the running kernel",
				filepath.Base(others[0]), release)
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

// read calls take with the words of each line of an index, except empty lines and comments.
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

// moduleName returns the kernel's name of a module file: without directory and extensions, with underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Load loads the module called name, or every module with a matching alias, and its dependencies. An unknown name is not an
// error: the driver may be built in.
func (l *Loader) Load(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load(name, 0)
}

func (l *Loader) load(name string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("module %s: soft dependencies form a cycle", name)
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
			_ = l.load(s, depth+1) // soft dependencies are optional
		}
		// modules.dep lists the nearest dependency first; insert the farthest first.
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

// match returns the modules with an alias that matches modalias.
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

// fnmatch is fnmatch(3) without flags, as used by modprobe: unlike in path.Match, "*" also matches "/".
func fnmatch(pattern, s string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(s, "/", "\x01"))
	return ok && err == nil
}

// insert loads one file with finit_module(2). Modules that are loaded already and modules without hardware (ENODEV) are not
// errors.
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

// Coldplug loads the modules of all devices the kernel has found so far. Failures are logged and ignored, since the disk may
// depend on other devices.
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
	l.plug("sd_mod") // SCSI disks have a modalias only after probing
}

// plug loads the modules for a modalias and logs failures.
func (l *Loader) plug(modalias string) {
	if modalias == "" {
		return
	}
	if err := l.Load(modalias); err != nil {
		l.log("%v", err)
	}
}

// Unmatched lists the modaliases seen so far for which no module is packed, sorted.
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

// Modprobe loads a module or alias on request of the kernel, which calls /sbin/modprobe -q -- NAME (kernel/module/kmod.c).
func Modprobe(name string) error {
	l, err := NewLoader("/", func(string, ...any) {})
	if err != nil {
		return err
	}
	return l.Load(name)
}
