package line

import (
	"context"
	"fmt"
	"maps"

	"updater/internal/program"
	"updater/provision/plan"
)

// steps runs the programs of the plan that are due, in its order. The first that fails ends the unit.
func (r *run) steps(ctx context.Context, u *unit, when string) error {
	for _, s := range r.Plan.Step {
		if s.When != when {
			continue
		}
		u.step(s.Name, 0)
		if err := r.program(ctx, u, s); err != nil {
			return fmt.Errorf("%s: step %s: %w", u.Name, s.Name, err)
		}
	}
	return nil
}

// program runs a step and records how it ended.
func (r *run) program(ctx context.Context, u *unit, s plan.Step) error {
	vars := map[string]string{}
	if u.got != nil {
		maps.Copy(vars, r.Plan.Identity.Variables)
		maps.Copy(vars, u.got.Variables)
		vars["serial"] = u.got.Serial
	}
	vars["unit"], vars["target"] = u.Name, u.Disk.Path
	argv, err := s.Command(vars)
	if err != nil {
		return err
	}
	var lines []string
	_, err = program.Run(ctx, program.Command{Argv: argv, Limit: s.Limit, Line: func(l string) { lines = append(lines, l) }})
	u.note(func(f *facts) { f.log.Program(argv, lines, err) })
	return err
}
