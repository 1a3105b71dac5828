package uboot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"updater/boot"
)

// MaxEnvironment is the largest environment in bytes.
const MaxEnvironment = maxEnv

// Create writes the environment of a new device to its area, or to both areas of a redundant one, and replaces what they
// hold. text has one line name=value for each variable; empty lines and lines that begin with # are ignored. U-Boot does
// not merge its defaults, so text has to be complete; U-Boot's make target u-boot-initial-env writes it. The environment is
// durable and was read back when Create returns nil.
func Create(areas []boot.Area, text string) error {
	s, err := newStorage(areas, "")
	if err != nil {
		return err
	}
	e, err := initial(text)
	if err != nil {
		return fmt.Errorf("%w: initial environment: %w", boot.ErrState, err)
	}
	for i, a := range slices.Backward(areas) {
		e.flag = byte(1 - i) // the first copy is in use in both flag schemes
		data, err := e.encode(a.Size(), s.redundant())
		if err != nil {
			return fmt.Errorf("initial environment: %w", err)
		}
		if err := boot.WriteVerified(a, data, 0); err != nil {
			return err
		}
	}
	_, err = s.load()
	return err
}

func initial(text string) (*env, error) {
	e, seen := new(env), map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !ok || name == "" || strings.Contains(line, "\x00"):
			return nil, fmt.Errorf("%.40q, expected name=value", line)
		case seen[name]:
			return nil, fmt.Errorf("%.40q is set twice", name)
		}
		if seen[name] = true; value != "" {
			e.entries = append(e.entries, name+"="+strings.ReplaceAll(value, `\`, `\\`))
		}
	}
	if len(e.entries) == 0 {
		return nil, errors.New("no variables")
	}
	return e, nil
}
