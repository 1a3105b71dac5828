package line_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/provision/line"
	"updater/provision/plan"
	"updater/provision/provisiontest"
	"updater/provision/record"
	"updater/provision/target"
)

// TestSteps: programs run before the first byte and after the last one, with the unit's serial; their output and result are in the signed record. One
// that fails, hangs or must not be started fails only its unit, which keeps its serial for the next run. One that prints too much does not fail.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		name   string
		script string        // of the step after, run for all units; $2 is the unit
		mode   os.FileMode   // of the script; 0 is 0700
		limit  time.Duration // 0 is a minute
		error  string        // of the unit bad, after the script's name; "" passes
		output string        // of the step of the unit bad, its beginning; SERIAL stands for its serial
		cut    bool
	}{
		{name: "pass", script: "echo $1 $2; echo warning >&2", output: "SERIAL bad\nwarning"},
		{name: "fail", script: "echo measured 4.1 V; [ $2 != bad ] || exit 3", error: ": exit status 3", output: "measured 4.1 V"},
		{name: "timeout", script: "exec sleep 600", limit: time.Second, error: ": it took longer than 1s"},
		{name: "written by others", script: "exit 0", mode: 0o777, error: " has mode 0777, so others may write it"},
		{name: "too much output", script: "echo first; yes | head -c 1000000", output: "first\ny\ny\n", cut: true},
		{name: "no text", script: `printf 'a\033[1m\377b'`, output: "a\x1b[1m?b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLine(t, linePlan, 6<<20)
			script := filepath.Join(l.dir, "test.sh")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			if c.mode != 0 {
				if err := os.Chmod(script, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			early := `dd if="$1" bs=1M skip=1 count=1 2>/dev/null | head -c 6; echo " $2"` // the disk still has its old content
			l.plan.Step = []plan.Step{
				{Name: "early", When: plan.Before, Argv: []string{"/bin/sh", "-c", early, "sh", "{target}", "{mac}"}},
				{Name: "test", When: plan.After, Argv: []string{script, "{serial}", "{unit}"}, Limit: c.limit},
			}
			targets := []target.Target{l.target("bad", 128<<20, new(fault))}
			if c.mode == 0 && c.limit == 0 {
				targets = append(targets, l.target("good", 128<<20, new(fault)))
			}
			got := l.run(targets...)
			bad, want := got["bad"], record.Pass
			if c.error != "" {
				want = record.Fail
			}
			if bad.Verdict != want || !strings.Contains(bad.Error, c.error) || c.error != "" && !strings.HasPrefix(bad.Error, "bad: step test: ") {
				t.Errorf("result is %+v; want %s, %q", bad, want, c.error)
			}
			if len(targets) > 1 && got["good"].Verdict != record.Pass {
				t.Errorf("the other unit is %+v", got["good"])
			}
			steps := l.records()[bad.Record-1].Steps
			first, last := steps[slices.IndexFunc(steps, func(s record.Step) bool { return s.Name == "early" })], steps[len(steps)-1]
			if !strings.HasPrefix(first.Output, "oldold 02:00:00") || first.Verdict != record.Pass {
				t.Errorf("the step before is %+v", first)
			}
			if last.Name != "test" || last.Verdict != want || !slices.Equal(last.Argv, []string{script, bad.Serial, "bad"}) ||
				!strings.HasPrefix(last.Output, strings.Replace(c.output, "SERIAL", bad.Serial, 1)) || last.Cut != c.cut || len(last.Output) > 4096 {
				t.Errorf("the step after is %+v", last)
			}
			l.plan.Step = l.plan.Step[:1]
			if again := l.run(targets[0])["bad"]; want == record.Fail && (again.Verdict != record.Pass || again.Serial != bad.Serial) {
				t.Errorf("once the step is corrected the result is %+v; want a pass with serial %s", again, bad.Serial)
			}
			provisiontest.CheckSchema(t, filepath.Join(l.dir, "spool"))
		})
	}
}

// TestStepsOfCheck: a comparison runs no step.
func TestStepsOfCheck(t *testing.T) {
	l := newLine(t, linePlan, 6<<20)
	tg := l.target("unit", 128<<20, new(fault))
	if got := l.run(tg)["unit"]; got.Verdict != record.Pass {
		t.Fatalf("result is %+v", got)
	}
	l.plan.Step = []plan.Step{{Name: "a", When: plan.Before, Argv: []string{"/bin/false"}}, {Name: "b", When: plan.After, Argv: []string{"/bin/false"}}}
	job := l.job()
	job.Check = true
	if results, err := line.Run(t.Context(), job, []target.Target{tg}); err != nil || results[0].Verdict != record.Pass {
		t.Errorf("check = %+v, %v", results, err)
	}
}
