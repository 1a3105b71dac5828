package broadcast_test

import (
	"fmt"
	"testing"

	"updater/internal/broadcast"
)

// TestSlowReader: a reader that does not read delays nobody and keeps the newest events; a late one gets the last event first.
func TestSlowReader(t *testing.T) {
	var e broadcast.Events
	slow, stop := e.Read()
	defer stop()
	for i := range 1000 {
		fmt.Fprint(&e, i)
	}
	last := ""
	for len(slow) > 0 {
		last = string(<-slow)
	}
	if last != "999" {
		t.Errorf("the last event of a slow reader is %q", last)
	}
	late, end := e.Read()
	if got := string(<-late); got != "999" {
		t.Errorf("a late reader begins with %q", got)
	}
	end()
	fmt.Fprint(&e, "more")
	if len(late) != 0 || len(slow) != 1 {
		t.Errorf("%d events after the end, %d before it", len(late), len(slow))
	}
}
