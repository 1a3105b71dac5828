package recovery

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"updater/device/config"
	"updater/initramfs"
	"updater/initramfs/network"
)

// Network is the network of the initramfs. It comes up when the first address is tried, and again before a lease ends.
type Network struct {
	settings []network.Setting
	dns      []netip.Addr
	log      func(format string, a ...any)
	hint     *TimeHint
	again    time.Time // when it is brought up again; zero is at once
	up       bool
}

// NewNetwork takes its settings from the kernel command line, else from the configuration. The command line is untrusted: invalid entries are
// logged and skipped. hint gets the time of a server in the network.
func NewNetwork(p initramfs.Params, c config.Recovery, hint *TimeHint, log func(format string, a ...any)) *Network {
	o := &Network{log: log, hint: hint}
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

// Up brings the network up, unless it still is up.
func (o *Network) Up(ctx context.Context) error {
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
		o.log("network: time %s from %s; it judges certificates of servers when it is later than the trusted clock", t.UTC().Format(time.RFC3339), server)
		break
	}
	return nil
}

// TimeHint is the time of an unauthenticated server. It makes TLS work on a device without a clock and decides nothing else: no signature,
// no expiry, no record. Safe for concurrent use.
type TimeHint struct {
	mu           sync.Mutex
	answered, at time.Time
}

func (h *TimeHint) set(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answered, h.at = t, time.Now()
}

// Later returns the hinted time when it is after now, the trusted time; never an earlier one.
func (h *TimeHint) Later(now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answered.IsZero() {
		return now
	}
	if t := h.answered.Add(time.Since(h.at)); t.After(now) {
		return t
	}
	return now
}
