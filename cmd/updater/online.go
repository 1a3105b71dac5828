package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"updater/initramfs"
	"updater/initramfs/network"
)

// online is the network of the initramfs, brought up when the first address is tried, and again before a
// lease ends.
type online struct {
	settings []network.Setting
	dns      []netip.Addr
	log      func(format string, a ...any)
	hint     *timeHint
	again    time.Time // when it is brought up again; zero is at once
	up       bool
}

// newOnline takes what the kernel command line says, else the configuration. The command line is untrusted:
// what it has wrong is said and left out.
func newOnline(p initramfs.Params, c RecoveryConfig, hint *timeHint, log func(format string, a ...any)) *online {
	o := &online{log: log, hint: hint}
	words, names := p.IP, p.Nameservers
	if len(words) == 0 {
		words = c.IP
	}
	if len(names) == 0 {
		names = c.Nameservers
	}
	for _, w := range words {
		s, err := network.ParseIP(w)
		if err != nil {
			log("%v", err)
			continue
		}
		o.settings = append(o.settings, s)
	}
	for _, n := range names {
		a, err := netip.ParseAddr(n)
		if err != nil {
			log("nameserver %.60q: %v", n, err)
			continue
		}
		o.dns = append(o.dns, a)
	}
	return o
}

// Up brings the network up, unless it still is.
func (o *online) Up(ctx context.Context) error {
	if o.up && (o.again.IsZero() || time.Now().Before(o.again)) {
		return nil
	}
	st, err := network.Up(ctx, network.Options{Settings: o.settings, Nameservers: o.dns, Log: o.log})
	if err != nil {
		return err
	}
	o.up, o.again = true, time.Time{}
	if !st.Valid.IsZero() {
		o.again = time.Now().Add(time.Until(st.Valid) / 2)
	}
	for _, server := range st.NTP {
		t, err := network.AskTime(ctx, server)
		if err != nil {
			o.log("network: %v", err)
			continue
		}
		o.hint.set(t)
		o.log("network: %s says that it is %s; certificates of servers are judged by that when it is later than the trusted clock", server, t.UTC().Format(time.RFC3339))
		break
	}
	return nil
}

// timeHint is what an unauthenticated server said the time is. It makes TLS work on a device without a clock,
// and reaches nothing else: no signature, no expiry, no record. A nil one knows nothing.
type timeHint struct {
	mu       sync.Mutex
	said, at time.Time
}

func (h *timeHint) set(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said, h.at = t, time.Now()
}

// later returns the hinted time when it is after now, which the trusted clock says; never an earlier one.
func (h *timeHint) later(now time.Time) time.Time {
	if h == nil {
		return now
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.said.IsZero() {
		return now
	}
	if t := h.said.Add(time.Since(h.at)); t.After(now) {
		return t
	}
	return now
}

func (r RecoveryConfig) checkNetwork() error {
	for _, w := range r.IP {
		if _, err := network.ParseIP(w); err != nil {
			return fmt.Errorf("recovery.ip: %w", err)
		}
	}
	for _, n := range r.Nameservers {
		if _, err := netip.ParseAddr(n); err != nil {
			return fmt.Errorf("recovery.nameservers: %w", err)
		}
	}
	return nil
}
