// Package steppedclock steps the wall clock of tests, as setting the time of a machine does: the monotonic clock goes on.
package steppedclock

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// base has a monotonic reading, which the times of a testing/synctest bubble lack.
var base = time.Now()

// Clock is a clock that tests step. Safe for concurrent use.
type Clock struct {
	began   time.Time
	seconds atomic.Int64
}

// New returns a clock that was not stepped. It goes as that of the bubble it is created in, if any.
func New() *Clock { return &Clock{began: time.Now()} }

// Step steps the wall clock by d, in whole seconds.
func (c *Clock) Step(d time.Duration) { c.seconds.Add(int64(d / time.Second)) }

// Now returns the time with its monotonic reading, as time.Now does.
func (c *Clock) Now() time.Time {
	t := base.Add(time.Since(c.began))
	// The first word of a time with a monotonic reading has the seconds of the wall clock above 30 bits of nanoseconds (time/time.go).
	*(*uint64)(unsafe.Pointer(&t)) += uint64(c.seconds.Load()) << 30
	return t
}
