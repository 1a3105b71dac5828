package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// When a step runs.
const (
	Before = "before" // the unit has its serial, and nothing of its disk has been written
	After  = "after"  // the disk was written, read back and made bootable; it is closed, and has no latch yet
)

const maxSteps = 16

// Step is a program of the station that runs once for each unit, such as one that prints a label, blows a fuse or tests the device. Exit code
// 0 passes; every other end fails the unit, and the later steps do not run.
type Step struct {
	Name  string        `toml:"name"`  // for the record
	Argv  []string      `toml:"argv"`  // the program, and its arguments as [Step.Command] expands them; no shell
	When  string        `toml:"when"`  // [Before] or [After]; "" is after
	Limit time.Duration `toml:"limit"` // 0 is one minute
}

// Command is the program with its arguments. vars are those of the unit's identity with {serial}, and {unit}, the name of the target, and
// {target}, its device.
func (s Step) Command(vars map[string]string) ([]string, error) {
	argv := s.Argv[:1:1]
	for _, arg := range s.Argv[1:] {
		arg, err := Expand(arg, vars)
		if err != nil {
			return nil, err
		}
		argv = append(argv, arg)
	}
	return argv, nil
}

// checkSteps sets the defaults, and expands the arguments unless variables come with the serial.
func (p *Plan) checkSteps() error {
	if len(p.Step) > maxSteps {
		return fmt.Errorf("%d steps, expected at most %d", len(p.Step), maxSteps)
	}
	for i := range p.Step {
		s := &p.Step[i]
		at := fmt.Sprintf("step %d %q", i+1, s.Name)
		s.When, s.Limit = cmp.Or(s.When, After), cmp.Or(s.Limit, time.Minute)
		switch {
		case !fileName.MatchString(s.Name):
			return fmt.Errorf("%s: expected a name of letters, digits and . _ -", at)
		case slices.ContainsFunc(p.Step[:i], func(o Step) bool { return o.Name == s.Name }):
			return fmt.Errorf("%s: duplicate name", at)
		case len(s.Argv) == 0 || s.Argv[0] == "":
			return fmt.Errorf("%s: argv is missing", at)
		case s.When != Before && s.When != After:
			return fmt.Errorf("%s: when is %q, expected %s or %s", at, s.When, Before, After)
		case s.Limit < time.Second || s.Limit > 24*time.Hour:
			return fmt.Errorf("%s: limit is %s, expected 1s to 24h, such as \"30s\"", at, s.Limit)
		}
		known, complete := p.Identity.names()
		known["unit"], known["target"] = "", ""
		if _, err := s.Command(known); complete && err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}
