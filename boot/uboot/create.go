package uboot

import (
	"fmt"
	"slices"
	"strings"

	"updater/boot"
)

// MaxEnvironment bounds an environment, in bytes.
const MaxEnvironment = maxEnv

// Create writes the environment of a new device into its area, or both areas of a redundant one, whatever they hold.
// text has a line name=value for each variable; empty lines and those that begin with # count for nothing. It is what
// U-Boot's make target u-boot-initial-env writes: U-Boot merges nothing, so it has to be complete. The environment is
// durable and read back when Create returns.
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
		e.flag = byte(1 - i) // the first is in use, for both schemes
		data, err := e.encode(a.Size(), s.redundant())
		if err != nil {
			return fmt.Errorf("%w: initial environment: %w", boot.ErrState, err)
		}
		if err := boot.WriteVerified(a, data, 0); err != nil {
			return err
		}
	}
	return nil
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
			return nil, fmt.Errorf("%.40q is there twice", name)
		}
		if seen[name] = true; value != "" {
			e.vars = append(e.vars, line)
		}
	}
	if len(e.vars) == 0 {
		return nil, fmt.Errorf("it has no variables")
	}
	return e, nil
}
