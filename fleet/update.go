package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/release"
	"updater/state"
	"updater/update"
)

// NothingError reports that the channel has nothing for this device now. Nothing was changed.
type NothingError struct{ Verdict *Verdict }

func (e *NothingError) Error() string { return "nothing to do: " + e.Verdict.Reason }

// WithdrawnError reports that a release was withdrawn between its choice and the switch. No slot was switched.
type WithdrawnError struct{ Version string }

func (e *WithdrawnError) Error() string {
	return fmt.Sprintf("version %s was withdrawn from the channel; no slot was switched", e.Version)
}

// Request is one update by the channel. Config is required.
type Request struct {
	Config       *config.Config
	DownloadOnly bool // write the slot and leave the switch to an activation
}

// Update checks the channel and installs the release that it has for the device, unless [when] of the configuration puts it off. It may be called at
// any moment and after any interruption: an install resumes from the content of the slot. The channel is asked again for a withdrawal before the
// switch. An install that fails is queued for the report. Errors: [NothingError], [WithdrawnError], those of [Check] and of [install.Run].
func Update(ctx context.Context, r Request, in install.Inputs, events install.Events) (*update.Result, error) {
	v, err := Check(ctx, r.Config, in)
	if err != nil {
		return nil, err
	}
	downloads := r.DownloadOnly || v.downloadOnly
	if reason := notNow("/", r.Config.When, v.clock, !downloads); reason != "" && (v.Entry != nil || v.Waiting) {
		v.Entry, v.Waiting, v.Reason = nil, false, v.Reason+", but not now: "+reason
	}
	if v.Entry == nil {
		return nil, &NothingError{v}
	}
	if err := tell(ctx, r.Config, in, *v.Entry, proceeding); err != nil {
		return nil, err
	}
	res, err := install.Run(ctx, install.Request{
		Config: r.Config, Image: install.Beside(v.document, v.Entry.Path), Identity: v.Entry.Identity, Attempt: v.Entry.Attempt,
		DownloadOnly: downloads, Confirm: func(ctx context.Context) error { return confirm(ctx, r.Config, v.Entry.Identity, in) },
	}, in, notifying{events, notifyEvery})
	if err != nil && res == nil && isFailure(ctx, err) {
		err = errors.Join(err, noteFailed(r.Config, *v.Entry, err))
	}
	if _, held := errors.AsType[*update.NothingError](err); v.closes && (held || res != nil) {
		err = errors.Join(err, tell(ctx, r.Config, in, *v.Entry, downloaded))
	}
	return res, err
}

// confirm refuses a release that the channel no longer offers.
func confirm(ctx context.Context, c *config.Config, identity string, in install.Inputs) error {
	f, err := follow(c, in)
	if err != nil {
		return err
	}
	defer f.close()
	if f.server != nil {
		return f.stands(ctx)
	}
	return f.offered(ctx, identity)
}

// offered asks the channel whether a release is withdrawn.
func (f *follower) offered(ctx context.Context, identity string) error {
	channel, _, err := f.channel(ctx)
	if err != nil {
		return fmt.Errorf("asking the channel again before the switch: %w", err)
	}
	list := channel.Contents().Releases
	i := slices.IndexFunc(list, func(e release.Entry) bool { return e.Identity == identity })
	if i < 0 {
		return &WithdrawnError{Version: identity[:16]}
	}
	if list[i].Withdrawn {
		return &WithdrawnError{Version: list[i].Version}
	}
	return nil
}

// isFailure reports whether an install failed, and was not only put off, ended by a person or not needed.
func isFailure(ctx context.Context, err error) bool {
	_, nothing := errors.AsType[*update.NothingError](err)
	_, handed := errors.AsType[*install.HandedOver](err)
	_, withdrawn := errors.AsType[*WithdrawnError](err)
	_, locked := errors.AsType[*device.LockedError](err)
	_, changed := errors.AsType[*device.ChangedError](err)
	_, trial := errors.AsType[*update.NotGoodError](err)
	return !nothing && !handed && !withdrawn && !locked && !changed && !trial && ctx.Err() == nil
}

func noteFailed(c *config.Config, e release.Entry, cause error) error {
	dev, err := device.Open(c, device.Options{Purpose: device.Change})
	if err != nil {
		return err
	}
	defer dev.Close()
	return dev.NoteFailed(update.Record{Release: e.Identity, Version: e.Version, RollbackIndex: e.RollbackIndex}, e.Attempt, cause)
}

// Activation is a switch that a person or a script asks for.
type Activation struct {
	Config       *config.Config
	Slot, Booted string
	Offline      bool // do not ask the channel
}

// MayActivate checks a slot whose release was downloaded without a switch, or whose tries ran out. It compares the slot with its signed
// documents and, unless r is offline, asks the channel whether the release was withdrawn. Other slots pass, and so does every slot of a
// device without a channel. Errors: [WithdrawnError], update.BootError, those of comparing and of fetching the channel.
func MayActivate(ctx context.Context, r Activation, in install.Inputs) error {
	if !r.Config.Follows() {
		return nil
	}
	dev, err := device.Open(r.Config, device.Options{Purpose: device.Change, Booted: r.Booted})
	if err != nil {
		return err
	}
	defer dev.Close()
	st, err := dev.BootState(ctx)
	if err != nil {
		return err
	}
	rec := dev.Release(r.Slot)
	if rec.Outcome != update.OutcomeInstalled || rec.Release == "" {
		return nil
	}
	for _, s := range st.Slots {
		if s.Name == r.Slot && s.Bootable {
			return nil
		}
	}
	if err := intact(ctx, dev, r.Slot); err != nil || r.Offline {
		return err
	}
	return confirm(ctx, r.Config, rec.Release, in)
}

// intact compares a slot with its signed documents.
func intact(ctx context.Context, dev *device.Device, slot string) error {
	trust, err := dev.Trust(nil)
	if err != nil {
		return err
	}
	switch err := dev.Intact(ctx, slot, trust.Policy); {
	case errors.Is(err, state.ErrNoDocument):
		err = fmt.Errorf("%w: %w; updater update compares it with the channel's", device.ErrRefused, err)
		return &update.BootError{Slot: slot, Doing: "comparing it before the switch", Err: err}
	case err != nil:
		return fmt.Errorf("slot %s: %w", slot, err)
	}
	return nil
}
