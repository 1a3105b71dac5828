package install

import (
	"io"
	"time"

	"updater/device"
	"updater/update"
)

// Events are told how a job goes. Their methods may be called from several goroutines at a time.
type Events interface {
	Warn(format string, a ...any)
	// Device is told of the medium before it is written.
	Device(f device.Facts)
	// Hook is told every line that a hook prints.
	Hook(name, line string)
	// Progress returns the counters that the job fills, and what ends their display. It is called once.
	Progress() (p *update.Progress, stop func())
}

// Inputs are what a job may read besides files and servers.
type Inputs struct {
	Stdin io.Reader
	Warn  func(format string, a ...any)
	// Clock, unless nil, is given the trusted time and returns the one that certificates of servers are judged by.
	Clock func(trusted time.Time) time.Time
}
