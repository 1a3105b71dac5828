package install

import (
	"io"
	"time"

	"updater/device"
	"updater/update"
)

// Events receives the progress of a job. Its methods may be called from several goroutines at a time.
type Events interface {
	Warn(format string, a ...any)
	// Device is called with the medium before it is written.
	Device(f device.Facts)
	// Hook is called with every line that a hook prints.
	Hook(name, line string)
	// Progress returns the counters that the job fills, and the function that ends their display. It is called once.
	Progress() (p *update.Progress, stop func())
}

// Inputs are the inputs of a job besides files and servers.
type Inputs struct {
	Stdin io.Reader
	Warn  func(format string, a ...any)
	// Clock, unless nil, gets the trusted time and returns the one that certificates of servers are judged by.
	Clock func(trusted time.Time) time.Time
}
