package source

import (
	"context"
	"sync"
	"time"
)

// pace spreads the bytes of all downloads of a client over time.
type pace struct {
	mu   sync.Mutex
	free time.Time // when the bytes so far may have come
}

// most bounds one read to a tenth of a second of the rate, so that the bytes come evenly.
func (o HTTPOptions) most(n int64) int64 {
	if o.MaxRate == 0 {
		return n
	}
	return min(n, max(o.MaxRate/10, 512))
}

// maxDebt is how much time without bytes is made up for, such as that of a busy machine.
const maxDebt = time.Second

// spend waits until n more bytes may have come.
func (p *pace) spend(ctx context.Context, n int, rate int64) {
	if rate == 0 || n == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.IsZero() {
		p.free = now
	} else if least := now.Add(-maxDebt); p.free.Before(least) {
		p.free = least
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	wait := p.free.Sub(now)
	p.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}
