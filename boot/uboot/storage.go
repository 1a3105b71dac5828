package uboot

import (
	"errors"
	"fmt"

	"updater/boot"
)

// Flags is how the flag byte of a redundant environment says which copy is in use.
type Flags string

// The flag schemes (U-Boot, tools/env/fw_env.c).
const (
	// Incremental counts up with every save: block devices, files, NAND and UBI.
	Incremental Flags = "incremental"
	// Boolean is 1 for the copy in use and 0 for the other, which a second write of one byte makes so after
	// the new copy is whole: parallel and SPI NOR.
	Boolean Flags = "boolean"
)

// storage is an environment in one area, or redundant in two.
type storage struct {
	areas []boot.Area
	flags Flags
}

func newStorage(areas []boot.Area, flags Flags) (*storage, error) {
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%w: %d environment areas, expected 1 or 2", boot.ErrState, len(areas))
	}
	for _, a := range areas {
		if a.Size() != areas[0].Size() || a.Size() > maxEnv {
			return nil, fmt.Errorf("%w: environment %s has %d bytes, expected the same size for all, at most %d", boot.ErrState, a, a.Size(), maxEnv)
		}
	}
	switch flags {
	case "":
		flags = Incremental
	case Incremental, Boolean:
	default:
		return nil, fmt.Errorf("%w: flag scheme %q, expected incremental or boolean", boot.ErrState, flags)
	}
	return &storage{areas, flags}, nil
}

func (s *storage) redundant() bool { return len(s.areas) == 2 }

// loaded is the environment that U-Boot would use.
type loaded struct {
	*storage
	env    *env
	raw    []byte // of the copy in use
	active int    // its index
	stale  bool   // the other copy claims to be in use too, though it loses
	bad    string // what is wrong with the other; "" is nothing
}

// load reads both copies from the medium and picks the one that U-Boot would use. A copy that cannot be read
// may be the newer one: then nothing is done on the strength of the other.
func (s *storage) load() (*loaded, error) {
	envs, raws, errs := make([]*env, len(s.areas)), make([][]byte, len(s.areas)), make([]error, len(s.areas))
	for i, a := range s.areas {
		var err error
		if raws[i], err = boot.ReadAll(a); err != nil {
			return nil, err
		}
		if envs[i], errs[i] = parse(raws[i], s.redundant()); errs[i] != nil {
			errs[i] = fmt.Errorf("environment copy %d (%s) %w", i+1, a, errs[i])
		}
	}
	const lost = "U-Boot uses its built-in environment; restore it there with env default -a and saveenv"
	l := &loaded{storage: s}
	switch {
	case !s.redundant():
		if errs[0] != nil {
			return nil, fmt.Errorf("%w: %w; %s", boot.ErrState, errs[0], lost)
		}
	case errs[0] != nil && errs[1] != nil:
		return nil, fmt.Errorf("%w: %w; %s", boot.ErrState, errors.Join(errs...), lost)
	case errs[0] != nil:
		l.active, l.bad = 1, errs[0].Error()
	case errs[1] != nil:
		l.active, l.bad = 0, errs[1].Error()
	default:
		if !s.firstIsActive(envs[0].flag, envs[1].flag) {
			l.active = 1
		}
		l.stale = s.flags == Boolean && envs[1-l.active].flag != 0
	}
	l.env, l.raw = envs[l.active], raws[l.active]
	return l, nil
}

// firstIsActive says which of two good copies U-Boot takes, by their flags. Incremental: the greater one, but
// 0 comes after 255; equal flags mean the first (env/common.c, env_check_redund). Boolean: the one with 1;
// an erased flag counts as 1, and equal flags mean the first (env/flash.c).
func (s *storage) firstIsActive(flag1, flag2 byte) bool {
	if s.flags == Boolean {
		return flag1 != 0 || flag2 == 0
	}
	switch {
	case flag1 == 255 && flag2 == 0:
		return false
	case flag1 == 0 && flag2 == 255:
		return true
	}
	return flag1 >= flag2
}

// save writes e: into the copy that is not in use, or, of a single copy, the sectors that differ.
func (l *loaded) save(e *env) error {
	if !l.redundant() {
		data, err := e.encode(l.areas[0].Size(), false)
		if err != nil {
			return fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		keepPadding(data, l.raw, e)
		return boot.WriteChanged(l.areas[0], l.raw, data)
	}
	e = e.clone()
	e.flag = l.env.flag + 1 // wraps, as U-Boot's does
	if l.flags == Boolean {
		e.flag = 1
	}
	data, err := e.encode(l.areas[0].Size(), true)
	if err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	if err := boot.WriteVerified(l.areas[1-l.active], data, 0); err != nil {
		return err
	}
	if l.flags == Boolean {
		return retire(l.areas[l.active])
	}
	return nil
}

// retire clears the flag of a copy, which no erase is needed for.
func retire(a boot.Area) error { return boot.WriteVerified(a, []byte{0}, flagOffset) }

// repair rewrites a bad copy from the good one, and clears a flag that should be.
func (l *loaded) repair() error {
	if l.bad != "" {
		return l.save(l.env)
	}
	if l.stale {
		return retire(l.areas[1-l.active])
	}
	return nil
}

func (l *loaded) findings() []boot.Finding {
	var found []boot.Finding
	switch {
	case !l.redundant():
		found = append(found, boot.Warn("build U-Boot with a redundant environment",
			"the environment %s has one copy: a power cut while it is written may lose it, and U-Boot then boots what is built in", l.areas[0]))
	case l.bad != "":
		found = append(found, boot.Warn(boot.RemedyRepair, "%s", l.bad))
	case l.stale:
		found = append(found, boot.Warn(boot.RemedyRepair, "both copies of the environment say that they are in use; U-Boot takes copy %d", l.active+1))
	}
	return found
}
