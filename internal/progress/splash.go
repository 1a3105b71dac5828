package progress

import (
	"fmt"
	"os"
	"syscall"

	"updater/device"
	"updater/internal/terminal"
	"updater/update"
)

// splash is the sink for psplash. It never waits: a splash screen that does not read misses messages, and a missing one is no fault.
type splash struct {
	fd   int
	last int64 // percent
}

// openSplash returns nil when no splash screen listens.
func openSplash(path string) *splash {
	if info, err := os.Stat(path); path == "" || err != nil || info.Mode().Type() != os.ModeNamedPipe {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &splash{fd: fd, last: -1}
}

func (s *splash) tell(format string, a ...any) {
	_, _ = syscall.Write(s.fd, append(fmt.Appendf(nil, format, a...), 0))
}

// shares are the parts of the splash screen's bar for the long phases, in percent.
var shares = map[update.Phase][2]int64{update.PhaseWrite: {0, 60}, update.PhaseReadBack: {60, 100}}

func (s *splash) Sample(p Sample) {
	share, ok := shares[p.Phase]
	if !ok {
		return
	}
	done, total := p.All()
	if now := share[0] + (share[1]-share[0])*done/total; now > s.last {
		s.last = now
		s.tell("PROGRESS %d", now)
	}
}

func (s *splash) Phase(p Begin) {
	if p.Phase == "" {
		return
	}
	s.tell("MSG %s", doing(p.Phase, p.Of))
	if p.Phase == update.PhaseSwitch {
		s.Sample(Sample{Phase: update.PhaseReadBack, Bar: terminal.Bar{Done: 1, Total: 1}})
	}
}

func (s *splash) Warn(string)         {}
func (s *splash) Device(device.Facts) {}
func (s *splash) Fetch(update.Fetch)  {}
func (s *splash) Hook(string, string) {}
func (s *splash) Close()              { _ = syscall.Close(s.fd) }
