package source

import (
	"context"
	"sync"
	"time"
)

// Pace spreads the bytes of all transfers of a program over time. It is safe for concurrent use.
type Pace struct {
	Rate int64 // bytes per second; 0 is no limit

	mu   sync.Mutex
	free time.Time // when the rate allows the next byte
}

// Most bounds one read or write of n bytes to a tenth of a second of the rate, so that the bytes come evenly.
func (p *Pace) Most(n int64) int64 {
	if p.Rate == 0 {
		return n
	}
	return min(n, max(p.Rate/10, 512))
}

// maxDebt is the longest time without bytes that is made up for, such as that of a busy machine.
const maxDebt = time.Second

// Spend waits until n more bytes may have come.
func (p *Pace) Spend(ctx context.Context, n int) {
	if p.Rate == 0 || n == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.IsZero() {
		p.free = now
	} else if least := now.Add(-maxDebt); p.free.Before(least) {
		p.free = least
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.Rate) * float64(time.Second)))
	wait := p.free.Sub(now)
	p.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}
