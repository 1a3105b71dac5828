package initramfs

import (
	"context"
	"time"
)

// A Choice is one that was not made at the console.
type Choice struct {
	Doing    string // for the log
	Do       func(ctx context.Context) error
	Installs bool            // Do installs an update
	Done     func(err error) // is called with the error of Do; must not block
}

// Remote is where people make choices over the network.
type Remote struct {
	Choices <-chan Choice
	Notice  func() []string // how to get there, for the consoles alone: it may have a secret, which the log must not have
}

// answerTime is how long a successful choice waits before the restart, for its answer to arrive.
const answerTime = 3 * time.Second

// openRemote brings the network up, and opens the place of remote choices once.
func (r *runner) openRemote(ctx context.Context) {
	if r.OpenRemote == nil {
		return
	}
	if err := r.during(func() error { return r.Network(ctx) }); err != nil {
		r.failed(err)
	}
	if r.remote == nil {
		remote, err := r.OpenRemote(ctx)
		if err != nil {
			r.failed(err)
			return
		}
		r.remote = remote
		r.Console.change(func(s *screen) { s.more = remote.Notice })
	}
}

// chosen carries out a remote choice, if there is one. It reports whether there was one, and whether the machine restarts.
func (r *runner) chosen(ctx context.Context) (was, done bool) {
	if r.remote == nil {
		return false, false
	}
	select {
	case c := <-r.remote.Choices:
		r.log("recovery: %s, as chosen over the network", c.Doing)
		err := c.Do(ctx)
		c.Done(err)
		if err != nil {
			r.failed(err)
			return true, false
		}
		if r.installed = r.installed || c.Installs; !c.Installs {
			r.OnDone = "reboot"
		}
		_ = r.wait(answerTime)
		return true, true
	default:
		return false, false
	}
}
