package fleet

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/install"
	"updater/update"
)

type quiet struct {
	install.Events
	p update.Progress
}

func (q *quiet) Progress() (*update.Progress, func()) { return &q.p, func() {} }

// The service manager gets progress, and nothing while there is none.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	_, stop := notifying{Events: new(quiet), every: time.Millisecond}.Progress()
	got := make([]byte, 200)
	n, _, err := c.ReadFrom(got)
	if want := "EXTEND_TIMEOUT_USEC=600000000\n"; err != nil || !strings.HasPrefix(string(got[:n]), "STATUS=") || !strings.HasSuffix(string(got[:n]), want) {
		t.Errorf("%q, %v", got[:n], err)
	}
	time.Sleep(20 * time.Millisecond)
	stop()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, _, err := c.ReadFrom(got); err == nil {
		t.Errorf("without progress: %q", got[:n])
	}
	t.Setenv("NOTIFY_SOCKET", "")
	_, stop = notifying{Events: new(quiet)}.Progress()
	stop()
}
