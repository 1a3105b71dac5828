package uboot

import (
	"errors"
	"fmt"
	"slices"

	"updater/boot"
)

// Flags is the scheme by which the flag byte of a redundant environment marks the copy in use.
type Flags string

// The flag schemes (U-Boot, tools/env/fw_env.c).
const (
	// Incremental counts up with every save: block devices, files, NAND and UBI.
	Incremental Flags = "incremental"
	// Boolean is 1 for the copy in use and 0 for the other one, which is set by a second write of one byte once the new
	// copy is complete: parallel and SPI NOR.
	Boolean Flags = "boolean"
)

// storage is an environment in one area, or redundant in two.
type storage struct {
	areas []boot.Area
	flags Flags
	own   []string // the variables that this package reads
}

func newStorage(areas []boot.Area, flags Flags) (*storage, error) {
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%w: %d environment areas, expected 1 or 2", boot.ErrState, len(areas))
	}
	for _, a := range areas {
		if a.Size() != areas[0].Size() || a.Size() > maxEnv {
			return nil, fmt.Errorf("%w: environment %s has %d bytes; expected copies of equal size and at most %d bytes",
				boot.ErrState, a, a.Size(), maxEnv)
		}
	}
	switch flags {
	case "", Incremental, Boolean:
	default:
		return nil, fmt.Errorf("%w: flag scheme %q, expected incremental or boolean", boot.ErrState, flags)
	}
	return &storage{areas: areas, flags: flags}, nil
}

func (s *storage) redundant() bool { return len(s.areas) == 2 }

// loaded is the environment that U-Boot uses.
type loaded struct {
	*storage
	env    *env
	raw    []byte // of the copy in use
	active int    // index of the copy in use
	stale  bool   // the other copy is flagged as in use, too
	equal  bool   // both copies have the same data
	bad    string // why the other copy is unusable; "" if it is usable
}

// load reads both copies from the medium and chooses the one that U-Boot uses (env/common.c, env_check_redund): a copy
// that cannot be read or has a bad checksum is skipped; the flags decide between two valid ones. Only the chosen copy is
// parsed: U-Boot does not fall back to the other one if it cannot import it.
func (s *storage) load() (*loaded, error) {
	raws, errs := make([][]byte, len(s.areas)), make([]error, len(s.areas))
	for i, a := range s.areas {
		raw, err := boot.ReadAll(a)
		if err != nil { // the older copy is only used if this one stays unreadable
			raw, err = boot.ReadAll(a)
		}
		if err == nil {
			err = checksum(raw, s.redundant())
		}
		raws[i] = raw
		if err != nil {
			errs[i] = fmt.Errorf("environment copy %d (%s) %w", i+1, a, err)
		}
	}
	l := &loaded{storage: s}
	switch {
	case errs[0] != nil && (!s.redundant() || errs[1] != nil):
		return nil, s.lost(raws, errs)
	case !s.redundant():
	case errs[0] != nil:
		l.active, l.bad = 1, errs[0].Error()
	case errs[1] != nil:
		l.bad = errs[1].Error()
	default:
		if err := l.choose(raws); err != nil {
			return nil, err
		}
	}
	l.raw = raws[l.active]
	var err error
	if l.env, err = parse(l.raw, s.redundant()); err == nil {
		err = l.env.checkAll(s.own)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: environment copy %d (%s) %w; correct it in U-Boot with setenv and saveenv; its checksum is valid",
			boot.ErrState, l.active+1, s.areas[l.active], err)
	}
	return l, nil
}

// lost is the error of an environment without a valid copy. It advises restoring the environment only if no other size or
// number of copies makes a checksum valid.
func (s *storage) lost(raws [][]byte, errs []error) error {
	err := fmt.Errorf("%w: %w", boot.ErrState, errors.Join(errs...))
	for i, raw := range raws {
		for size := len(raw); size >= minSize; size /= 2 {
			for _, redundant := range []bool{false, true} {
				if checksum(raw[:size], redundant) == nil {
					return fmt.Errorf("%w; %s holds a copy with a valid checksum for %s environment of %#x bytes: correct the configuration",
						err, s.areas[i], kindOf(redundant), size)
				}
			}
		}
	}
	return fmt.Errorf("%w; U-Boot uses its built-in environment: check offset and size in the configuration, "+
		"or restore it in U-Boot with env default -a and saveenv", err)
}

// minSize is the smallest size of an environment that [storage.lost] tries, in bytes.
const minSize = 1 << 10

func kindOf(redundant bool) string {
	if redundant {
		return "a redundant"
	}
	return "a single"
}

// choose chooses between two valid copies by their flags. It refuses flags on which U-Boot's drivers or libubootenv
// disagree, unless the copies are equal otherwise.
func (l *loaded) choose(raws [][]byte) error {
	flag := [2]byte{raws[0][flagOffset], raws[1][flagOffset]}
	l.equal = slices.Equal(raws[0][flagOffset+1:], raws[1][flagOffset+1:])
	readers := []func(a, b byte) int{incremental}
	if l.flags == Boolean {
		readers = []func(a, b byte) int{flash, incremental, tool}
	}
	l.active = readers[0](flag[0], flag[1])
	l.stale = l.flags == Boolean && flag[1-l.active] != 0
	for _, other := range readers[1:] {
		if other(flag[0], flag[1]) != l.active && !l.equal {
			return fmt.Errorf("%w: the flags %#02x and %#02x of the environment copies %s and %s are ambiguous; expected 0 or 1; run saveenv in U-Boot",
				boot.ErrState, flag[0], flag[1], l.areas[0], l.areas[1])
		}
	}
	return nil
}

// incremental chooses as U-Boot does for counting flags, and in SPI NOR (env/common.c, env_check_redund): the greater flag,
// except that 0 follows 255; the first copy if they are equal.
func incremental(a, b byte) int {
	switch {
	case a == 255 && b == 0:
		return 1
	case a == 0 && b == 255:
		return 0
	case b > a:
		return 1
	}
	return 0
}

// flash chooses as U-Boot does in parallel NOR (env/flash.c, env_flash_load).
func flash(a, b byte) int {
	if a == 0 && b == 1 || a != 255 && b == 255 {
		return 1
	}
	return 0
}

// tool chooses as libubootenv does for boolean flags (src/uboot_env.c, libuboot_load).
func tool(a, b byte) int {
	if b == 255 || a != 255 && b > a {
		return 1
	}
	return 0
}

// save writes e into the copy that is not in use, or the changed sectors of a single copy. Then it loads the
// environment as U-Boot does and compares every entry.
func (l *loaded) save(e *env) error {
	if err := l.write(e.clone()); err != nil {
		return err
	}
	got, err := l.load()
	if err != nil {
		return err
	}
	if !got.env.equal(e) {
		return fmt.Errorf("%w: environment copy %d (%s) is in use after the change, but does not hold it",
			boot.ErrState, got.active+1, l.areas[got.active])
	}
	return nil
}

func (l *loaded) write(e *env) error {
	if !l.redundant() {
		data, err := e.encode(l.areas[0].Size(), false)
		if err != nil {
			return err
		}
		keepPadding(data, l.raw, e)
		return boot.WriteChanged(l.areas[0], l.raw, data)
	}
	e.flag = l.env.flag + 1 // wraps, as U-Boot's does
	if l.flags == Boolean {
		e.flag = 1
	}
	data, err := e.encode(l.areas[0].Size(), true)
	if err != nil {
		return err
	}
	if err := boot.WriteVerified(l.areas[1-l.active], data, 0); err != nil {
		return err
	}
	if l.flags == Boolean {
		return retire(l.areas[l.active])
	}
	return nil
}

// retire clears the flag of a copy, for which flash needs no erase.
func retire(a boot.Area) error { return boot.WriteVerified(a, []byte{0}, flagOffset) }

// change saves e if it differs.
func (l *loaded) change(e *env) error {
	if e.equal(l.env) {
		return nil
	}
	return l.save(e)
}

// settle writes the environment in use over the other copy, unless both are equal. changed reports whether the environment in use has the
// last change: if its copy became unreadable, the older one must not replace it.
func (s *storage) settle(changed func(l *loaded) bool) error {
	l, err := s.load()
	switch {
	case err != nil || !s.redundant() || l.equal:
		return err
	case !changed(l):
		return fmt.Errorf("%w: environment copy %d (%s) is in use without the change that was just written; the other copy: %s",
			boot.ErrState, l.active+1, l.areas[l.active], l.bad)
	}
	return l.save(l.env)
}

// repeated lists the variables of this package that have more than one entry.
func (l *loaded) repeated() []string {
	return slices.DeleteFunc(slices.Clone(l.own), func(name string) bool { return l.env.count(name) < 2 })
}

// repair rewrites a bad copy, removes repeated entries, and clears a flag that should be clear.
func (l *loaded) repair() error {
	e := l.env.clone()
	for _, name := range l.repeated() {
		e.set(name, e.get(name))
	}
	switch {
	case l.bad != "" || !e.equal(l.env):
		return l.save(e)
	case l.stale:
		return retire(l.areas[1-l.active])
	}
	return nil
}

func (l *loaded) findings() []boot.Finding {
	var found []boot.Finding
	switch {
	case !l.redundant():
		found = append(found, boot.Warn("build U-Boot with a redundant environment",
			"the environment %s has one copy: a power cut during a write may lose it, and U-Boot then uses its built-in one", l.areas[0]))
	case l.bad != "":
		found = append(found, boot.Warn(boot.RemedyRepair, "%s", l.bad))
	case l.stale:
		found = append(found, boot.Warn(boot.RemedyRepair, "both copies of the environment are flagged as in use; U-Boot uses copy %d", l.active+1))
	}
	for _, name := range l.repeated() {
		found = append(found, boot.Warn(boot.RemedyRepair, "the environment %s sets %s %d times; U-Boot uses the last",
			l.areas[l.active], name, l.env.count(name)))
	}
	return found
}
