package record

import (
	"strings"
	"time"
)

// Log collects the steps and retries of one unit. The zero value is empty. Not safe for concurrent use.
type Log struct {
	Steps   []Step
	Retries []Retry
	began   time.Time // of the current step; zero between two
}

// Begin ends the current step, which processed done bytes, and begins the next one.
func (l *Log) Begin(step string, done int64) (began time.Time) {
	l.End(done)
	l.began = time.Now()
	l.Steps = append(l.Steps, Step{Name: step})
	return l.began
}

// End ends the current step, which processed done bytes.
func (l *Log) End(done int64) {
	if l.began.IsZero() {
		return
	}
	s := &l.Steps[len(l.Steps)-1]
	s.Seconds, s.Bytes = time.Since(l.began).Seconds(), done
	if s.Seconds > 0 && s.Bytes > 0 {
		s.BytesPerSecond = int64(float64(s.Bytes) / s.Seconds)
	}
	l.began = time.Time{}
}

// maxOutput is how much of a program's output is kept, in bytes.
const maxOutput = 4096

// Program records the program of the current step, its output and its result.
func (l *Log) Program(argv, lines []string, err error) {
	s := &l.Steps[len(l.Steps)-1]
	s.Argv, s.Verdict = argv, Pass
	if err != nil {
		s.Verdict = Fail
	}
	text := strings.Join(lines, "\n")
	s.Cut = len(text) > maxOutput
	s.Output = strings.ToValidUTF8(text[:min(len(text), maxOutput)], "?")
}

// Retry records a retry and its reason. off is in bytes, 0 if it is unknown.
func (l *Log) Retry(step string, off int64, why error) {
	l.Retries = append(l.Retries, Retry{Step: step, Offset: off, Error: why.Error()})
}
