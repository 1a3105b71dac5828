package fleet

import (
	"fmt"
	"net"
	"os"
	"time"

	"updater/install"
	"updater/update"
)

// The intervals of messages to the service manager.
const (
	notifyEvery = 5 * time.Second
	notifyMore  = 10 * time.Minute // that the manager waits for the next progress; longer than source.give_up by default
)

// notifying reports the progress of an install to the service manager: sd_notify(3), STATUS and EXTEND_TIMEOUT_USEC. An install that makes
// no progress asks for no more time.
type notifying struct {
	install.Events
	every time.Duration
}

// Progress implements install.Events.
func (n notifying) Progress() (*update.Progress, func()) {
	p, stop := n.Events.Progress()
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return p, stop
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		moves := int64(-1)
		for ticks := time.NewTicker(n.every); ; {
			if now := p.Moves(); now != moves {
				moves = now
				notify(socket, p)
			}
			select {
			case <-ticks.C:
			case <-done:
				ticks.Stop()
				return
			}
		}
	}()
	return p, func() {
		close(done)
		<-ended
		stop()
	}
}

// notify sends one message. A manager that cannot be reached is ignored.
func notify(socket string, p *update.Progress) {
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer c.Close()
	phase, done, total := p.Sample()
	status := string(phase)
	if total > 0 {
		status = fmt.Sprintf("%s: %d %%", phase, 100*done/total)
	}
	_, _ = fmt.Fprintf(c, "STATUS=%s\nEXTEND_TIMEOUT_USEC=%d\n", status, notifyMore.Microseconds())
}
