package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/release"
	"updater/state"
	"updater/update"
)

// hawkbit is the server of this device.
func (f *follower) hawkbit() (*hawkbit, error) {
	identifier, err := f.identifier()
	if err != nil {
		return nil, err
	}
	return newHawkbit(f.dev.Config, f.from, identifier)
}

// offer asks the hawkBit server and judges the release that it offers. The server decides which release it is; only the signature, the
// product, the hardware and the floor hold here. The action's number is the attempt of the release, so that one that failed here needs
// a new action.
func (f *follower) offer(ctx context.Context) (*Verdict, error) {
	v := &Verdict{Channel: "hawkbit", clock: f.clock()}
	v.Reason = "the server has nothing for this device"
	a, err := f.server.poll(ctx, f.attributes())
	switch {
	case err != nil || a == nil:
		return v, err
	case a.cancelled:
		v.Reason = fmt.Sprintf("the server has cancelled action %d", a.id)
		return v, f.cancel(ctx, *a)
	case !a.mayFetch:
		v.Reason = fmt.Sprintf("the server holds back the download of action %d", a.id)
		return v, nil
	}
	e, err := f.refuse(ctx, *a)
	if err != nil {
		return nil, err
	}
	d, err := f.facts(ctx)
	if err != nil {
		return nil, err
	}
	v.document, v.downloadOnly, v.closes = a.document, !a.mayUpdate, !a.mayUpdate && !a.window
	switch {
	case d.Failed[e.Identity] >= a.id || f.known(a.id):
		v.Reason = fmt.Sprintf("version %s was tried for action %d", e.Version, a.id)
	case d.Running.Identity == e.Identity && f.dev.State().Fleet.Trial.Release == e.Identity:
		v.Reason = fmt.Sprintf("version %s runs and was not marked good yet", e.Version)
	case d.Running.Identity == e.Identity:
		v.Reason = fmt.Sprintf("version %s runs", e.Version)
		return v, f.server.feedback(ctx, *a, succeeded, v.Reason)
	case d.Next.Identity == e.Identity:
		v.Reason, v.Waiting = fmt.Sprintf("version %s is installed and boots next", e.Version), true
	default:
		v.Entry, v.Reason = &e, fmt.Sprintf("version %s is for this device", e.Version)
	}
	return v, nil
}

// attributes describe the device to the server.
func (f *follower) attributes() map[string]string {
	c := f.dev.Config
	list := map[string]string{
		"product": c.Product, "hardware": strings.Join(device.Hardware("/", c), " "), "slot": f.dev.Booted(),
		"version": f.dev.Release(f.dev.Booted()).Version, "updater": c.Build.Version,
	}
	for name, value := range list {
		list[name] = clip(value, maxAttribute)
	}
	return list
}

// refuse opens the release of an action. One that this device never accepts ends the action.
func (f *follower) refuse(ctx context.Context, a action) (release.Entry, error) {
	var rel *release.Release
	err := error(&update.IncompatibleError{Reason: fmt.Sprintf("action %d has no artifact %s", a.id, release.DocumentName)})
	if a.document != "" {
		rel, err = f.open(ctx, a.document)
	}
	if err == nil {
		err = install.FitsSlots(rel, f.dev.Config)
	}
	if err == nil {
		r := rel.Order()
		return release.Entry{Identity: rel.Identity(), Version: rel.Version(), RollbackIndex: r.RollbackIndex, Path: release.DocumentName, Attempt: a.id}, nil
	}
	if isFetch(err) {
		return release.Entry{}, err
	}
	return release.Entry{}, errors.Join(err, f.server.feedback(ctx, a, failed, err.Error()))
}

// known reports whether the outcome of an action waits to be reported.
func (f *follower) known(id int64) bool {
	return slices.ContainsFunc(f.dev.State().Fleet.Reports, func(r state.Report) bool { return r.Attempt == id && r.Outcome != state.ReportFailed })
}

// cancel accepts that the server cancels an action, unless the slot was switched: its outcome follows.
func (f *follower) cancel(ctx context.Context, a action) error {
	if t := f.dev.State().Fleet.Trial; t.Attempt == a.id && !t.Ended || f.known(a.id) {
		return f.server.feedback(ctx, a, rejected, "the release boots next or runs already")
	}
	return f.server.feedback(ctx, a, succeeded, "cancelled before the switch")
}

// stands asks before a switch whether the server has cancelled the action.
func (f *follower) stands(ctx context.Context) error {
	l, err := f.server.links(ctx)
	if err != nil {
		return fmt.Errorf("asking the server again before the switch: %w", err)
	}
	a, err := f.server.cancelled(ctx, l)
	if err != nil {
		return err
	}
	if a != nil {
		return errors.Join(&WithdrawnError{Version: fmt.Sprintf("of action %d", a.id)}, f.cancel(ctx, *a))
	}
	return nil
}

// tell reports the progress of an install to a hawkBit server; a channel gets no report.
func tell(ctx context.Context, c *config.Config, in install.Inputs, e release.Entry, o outcome) error {
	if c.Channel.Hawkbit.URL == "" {
		return nil
	}
	f, err := follow(c, in)
	if err != nil {
		return err
	}
	defer f.close()
	return f.server.feedback(ctx, action{id: e.Attempt}, o, fmt.Sprintf("version %s is %s", e.Version, o.detail))
}
