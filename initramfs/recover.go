package initramfs

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"updater/internal/printable"
)

// Waits between two rounds of a recovery. The wait doubles each time; a new device or a key press resets it.
const (
	firstWait = 5 * time.Second
	lastWait  = 5 * time.Minute
)

// recover tries removable media, then the configured URLs, in rounds, until an update is installed or somebody at the console
// ends it. After the first round it also checks the slots, which may be intact although the boot loader gave them up. It returns
// nil when the device should restart.
func (r *runner) recover(ctx context.Context) error {
	if r.URL != "" {
		r.URLs = append([]string{r.URL}, r.URLs...)
	}
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("1\n"), 0) // messages of the kernel stay in its log
	r.Console.change(func(s *screen) { s.about = r.About })
	r.Console.show(nil)
	wait := firstWait
	for disk := ""; ; {
		if disk == "" {
			var err error
			if disk, err = r.waitDisk(ctx, time.Second); err != nil {
				r.failed(err)
			}
		}
		if disk != "" && r.round(ctx, disk) {
			return r.farewell(ctx)
		}
		switch a, err := r.rest(ctx, disk, wait); {
		case err != nil:
			return err
		case a == actionEnd:
			return r.farewell(ctx)
		case a == actionAgain:
			wait = firstWait
		default:
			wait = min(2*wait, lastWait)
		}
	}
}

// round tries every source once.
func (r *runner) round(ctx context.Context, disk string) (done bool) {
	status, err := r.device.Status(ctx)
	bootable := status.Bootable
	r.Console.change(func(s *screen) { s.status, s.tried = status, nil })
	switch {
	case err != nil:
		r.log("recovery: reading the boot state: %v", err)
	case bootable:
		r.log("recovery: a slot is bootable; a restart boots it")
	default:
		r.log("recovery: no slot is bootable; install an update")
	}
	found, err := r.tryMedia(ctx, disk)
	if found {
		return true
	}
	if err != nil {
		r.failed(err)
	} else {
		none := fmt.Sprintf("no medium with a directory updater/ or the label %s; other block devices: %s", UpdateLabel, names(disk))
		r.log("recovery: %s", none)
		r.Console.change(func(s *screen) { s.failed(none) })
	}
	r.openRemote(ctx)
	requested := ""
	if q, ok := r.device.(Requester); ok {
		requested = q.Requested()
	}
	for _, url := range append([]string{requested}, r.URLs...) {
		if url != "" && r.tryURL(ctx, url) {
			return true
		}
	}
	if requested != "" && r.untouched(ctx) {
		r.log("recovery: the update that the running system asked for was not installed; its slot is unchanged and boots again")
		return true
	}
	return !bootable && r.reactivate(ctx)
}

// untouched reports whether the only slot, which a request is for, still boots.
func (r *runner) untouched(ctx context.Context) bool {
	status, err := r.device.Status(ctx)
	return err == nil && status.Bootable
}

// reactivate makes intact slots bootable again. It tries once.
func (r *runner) reactivate(ctx context.Context) bool {
	if r.looked {
		return false
	}
	r.looked = true
	r.log("recovery: comparing the slots with their signed maps")
	slot, err := r.device.Reactivate(ctx)
	if err != nil {
		r.log("recovery: slots that are not intact: %v", err)
	}
	return slot != ""
}

func (r *runner) tryURL(ctx context.Context, url string) bool {
	r.log("recovery: trying %s", redact(url))
	if err := r.fromURL(ctx, url); err != nil {
		r.failed(fmt.Errorf("installing from %s: %w", redact(url), err))
		return false
	}
	return true
}

// redact returns an address without user information and query, which may be secrets.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(an invalid address)"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return shown.String()
}

// action is the result of a rest.
type action int

const (
	actionRetry action = iota // the wait elapsed
	actionAgain               // a device appeared, or somebody chose to try again
	actionEnd                 // restart or power off, see OnDone
)

// rest shows the menu and waits for d, a new block device or a choice.
func (r *runner) rest(ctx context.Context, disk string, d time.Duration) (action, error) {
	r.log("recovery: trying again in %s; plug in a medium at any time", d)
	before := r.plugged()
	r.Console.show(r.menu(ctx, disk))
	defer r.Console.change(func(s *screen) { s.menu = nil })
	minute := time.Now().Minute()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); {
		if ctx.Err() != nil {
			return actionEnd, context.Cause(ctx)
		}
		chosen, typed := r.Console.pressed()
		if typed {
			deadline = time.Now().Add(max(time.Until(deadline), time.Minute))
		}
		if chosen != nil {
			a, next := chosen()
			if next == nil {
				return a, nil
			}
			deadline = time.Now().Add(max(time.Until(deadline), time.Minute))
			r.Console.show(next)
		}
		if was, done := r.chosen(ctx); done {
			return actionEnd, nil
		} else if was {
			deadline = time.Now().Add(max(d, time.Minute))
			r.Console.show(r.menu(ctx, disk))
		}
		if err := r.wait(look); err != nil {
			return actionEnd, err
		}
		if now := time.Now().Minute(); now != minute {
			minute = now
			r.Console.refresh()
		}
		if now := r.plugged(); !contains(before, now) {
			time.Sleep(look) // for its partitions
			_ = r.wait(look)
			return actionAgain, nil
		} else if len(now) < len(before) {
			before = now
		}
	}
	return actionRetry, nil
}

// removePause is how long a person has to remove the medium before a restart, which may boot it.
const removePause = 10 * time.Second

// farewell asks for the medium that an update came from, and waits until it is removed, or for removePause.
func (r *runner) farewell(ctx context.Context) error {
	if r.medium == nil {
		return nil
	}
	r.log("recovery: installed; remove the medium %s; %s in %s", r.medium.Node, ending(r.OnDone), removePause)
	for deadline := time.Now().Add(removePause); time.Now().Before(deadline) && r.plugged()[r.medium.Node+" "+r.medium.Seq]; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.wait(look); err != nil {
			return err
		}
	}
	return nil
}

// plugged returns the set of block devices, with their sequence numbers.
func (r *runner) plugged() map[string]bool {
	set := map[string]bool{}
	blocks, _ := Blocks()
	for _, b := range blocks {
		set[b.Node+" "+b.Seq] = true
	}
	return set
}

// contains reports whether a contains every element of b.
func contains(a, b map[string]bool) bool {
	for k := range b {
		if !a[k] {
			return false
		}
	}
	return true
}

// menu builds the main menu.
func (r *runner) menu(ctx context.Context, disk string) *menu {
	again := func() (action, *menu) { return actionAgain, nil }
	m := &menu{title: "what to do"}
	m.add("try again now", again)
	m.add("choose the source", func() (action, *menu) { return 0, r.sources(ctx, disk) })
	m.add("show the slots", func() (action, *menu) {
		status, err := r.device.Status(ctx)
		if err != nil {
			r.failed(err)
		}
		r.Console.change(func(s *screen) { s.status = status })
		return 0, m
	})
	for _, slot := range r.device.Slots() {
		m.add(fmt.Sprintf("boot slot %s once", slot), func() (action, *menu) {
			if err := r.device.BootOnce(ctx, slot); err != nil {
				r.failed(err)
				return 0, m
			}
			r.OnDone = "reboot"
			return actionEnd, nil
		})
	}
	for _, end := range []struct{ label, how string }{{"restart", "reboot"}, {"power off", "poweroff"}} {
		m.add(end.label, func() (action, *menu) {
			r.OnDone = end.how
			return actionEnd, nil
		})
	}
	m.add("write the log to a medium", func() (action, *menu) { return 0, r.logMenu(disk, m) })
	return m
}

// sources builds the menu of available sources. Installing overwrites a slot, so it is confirmed.
func (r *runner) sources(ctx context.Context, disk string) *menu {
	s := &menu{title: "install from"}
	add := func(label string, do choice) {
		s.add(label, func() (action, *menu) { return 0, confirm("overwrite a slot with "+printable.Line(label), s, do) })
	}
	_ = r.media(disk, func(m medium) bool {
		if m.update == nil {
			return false
		}
		label := fmt.Sprintf("%s, %s", m.Node, strings.TrimPrefix(m.update.Image, mediaDir+"/"))
		add(label, func() (action, *menu) { return r.from(ctx, disk, m.Node), nil })
		return false
	})
	address := func(url string) choice {
		return func() (action, *menu) {
			if r.tryURL(ctx, url) {
				return actionEnd, nil
			}
			return actionRetry, nil
		}
	}
	for _, url := range r.URLs {
		add(redact(url), address(url))
	}
	s.add("an address that is typed here", func() (action, *menu) {
		return 0, &menu{title: "type the http:// or https:// address of an image or a release", enter: func(text string) (action, *menu) {
			if text == "" {
				return 0, s
			}
			if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				r.log("error: %.100q is no http:// or https:// address", text)
				return 0, s
			}
			return 0, confirm("overwrite a slot with "+redact(text), s, address(text))
		}}
	})
	s.add("back", func() (action, *menu) { return 0, r.menu(ctx, disk) })
	return s
}

// from installs the update on one medium.
func (r *runner) from(ctx context.Context, disk, node string) action {
	a := actionRetry
	err := r.media(disk, func(m medium) bool {
		if m.Node != node {
			return false
		}
		if err := r.installFrom(ctx, m); err != nil {
			r.failed(err)
		} else {
			a = actionEnd
		}
		return true
	})
	if err != nil {
		r.failed(err)
	}
	return a
}
