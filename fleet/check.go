package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/release"
	"updater/state"
	"updater/update"
)

// Verdict is the offer of a device's channel now.
type Verdict struct {
	Choice
	Channel   string
	Created   time.Time
	Expires   time.Time
	Freshness Freshness

	clock        Clock
	document     string // path or address of the channel, or of the document beside the release
	downloadOnly bool   // the server allows no switch now
	closes       bool   // the server counts the download as the end
}

// MarshalJSON is the verdict for machines.
func (v *Verdict) MarshalJSON() ([]byte, error) {
	e := v.Entry
	if e == nil {
		e = &release.Entry{}
	}
	return json.Marshal(struct {
		Available     bool      `json:"available"`
		Reason        string    `json:"reason"`
		Version       string    `json:"version,omitempty"`
		Identity      string    `json:"identity,omitempty"`
		RollbackIndex int64     `json:"rollback_index,omitempty"`
		Skipped       []Skipped `json:"skipped,omitempty"`
		Channel       string    `json:"channel"`
		Created       time.Time `json:"created,omitzero"`
		Expires       time.Time `json:"expires,omitzero"`
		Freshness     Freshness `json:"freshness,omitempty"`
	}{v.Entry != nil, v.Reason, e.Version, e.Identity, e.RollbackIndex, v.Skipped, v.Channel, v.Created, v.Expires, v.Freshness})
}

// maxDocuments bounds the release documents that one check reads.
const maxDocuments = 8

// Check fetches the channel of a device, accepts it, remembers it as the newest one, and chooses. The document of the chosen release was
// accepted as well; a release that it excludes for this device is passed over. Errors: [config.Error], [StaleError], update.ExpiredError,
// update.IncompatibleError, [release.EntryError], those of opening documents and of the device.
func Check(ctx context.Context, c *config.Config, in install.Inputs) (*Verdict, error) {
	f, err := follow(c, in)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if f.server != nil {
		return f.offer(ctx)
	}
	channel, v, err := f.channel(ctx)
	if err != nil {
		return nil, err
	}
	if v.Freshness == FreshUnknown {
		in.Warn("the clock is not set, so the freshness of the channel is unknown; it was created at %s", v.Created.UTC().Format(time.RFC3339))
	}
	d, err := f.facts(ctx)
	if err != nil {
		return nil, err
	}
	for range maxDocuments {
		v.Choice = Choose(channel.Contents(), d)
		if v.Entry == nil {
			break
		}
		reason, err := f.excludes(ctx, channel, *v.Entry, d.Running)
		if err != nil {
			return nil, fmt.Errorf("release %s of the channel: %w", v.Entry.Version, err)
		}
		if reason == "" {
			return v, nil
		}
		d.Refused[v.Entry.Identity] = reason
	}
	v.Entry = nil
	return v, nil
}

// follower is a device that follows its channel.
type follower struct {
	dev      *device.Device
	from     *install.Origins
	warn     func(format string, a ...any)
	document string   // of the channel
	server   *hawkbit // instead of it; nil means none
}

func follow(c *config.Config, in install.Inputs) (_ *follower, err error) {
	if !c.Follows() {
		return nil, config.Errorf("no channel is configured")
	}
	dev, err := device.Open(c, device.Options{Purpose: device.Change})
	if err != nil {
		return nil, err
	}
	for _, w := range dev.Warnings() {
		if !w.New {
			in.Warn("%s", w.Text)
		}
	}
	f := &follower{dev: dev, warn: in.Warn, from: install.NewOrigins(c, in, dev.State().Time)}
	trust, err := dev.Trust(nil)
	if err != nil {
		f.close()
		return nil, err
	}
	if trust.Warning != "" {
		in.Warn("%s", trust.Warning)
	}
	f.from.Trust = trust.Trust
	if c.Channel.Hawkbit.URL != "" {
		if f.server, err = f.hawkbit(); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

func (f *follower) close() {
	f.from.Close()
	_ = f.dev.Close()
}

// channel fetches the channel and accepts it, from the first of its addresses that has a fresh one. Relative names are resolved against that address.
func (f *follower) channel(ctx context.Context) (c *release.Channel, v *Verdict, err error) {
	at := f.dev.Config.Channel
	for i, address := range append([]string{at.URL}, at.Mirrors...) {
		f.document = address
		if c, v, err = f.channelHere(ctx); err == nil || !elsewhere(err) || i == len(at.Mirrors) {
			break
		}
		f.warn("%v; asking %s", err, install.ImageName(at.Mirrors[i]))
	}
	return c, v, err
}

// elsewhere reports whether another mirror may have a better answer.
func elsewhere(err error) bool {
	_, stale := errors.AsType[*StaleError](err)
	_, expired := errors.AsType[*update.ExpiredError](err)
	return stale || expired || isFetch(err)
}

func (f *follower) channelHere(ctx context.Context) (*release.Channel, *Verdict, error) {
	doc, sig, err := f.from.Document(ctx, release.TypeChannel, f.document, "")
	if err != nil {
		return nil, nil, err
	}
	channel, signed, err := f.from.Trust.OpenChannel(doc, sig)
	if err != nil {
		return nil, nil, err
	}
	c, want := channel.Contents(), f.dev.Config
	switch {
	case c.Product != want.Product:
		return nil, nil, &update.IncompatibleError{Reason: fmt.Sprintf("the channel is for product %q; this device is %q", c.Product, want.Product)}
	case c.Channel != want.Channel.Name:
		return nil, nil, &update.IncompatibleError{Reason: fmt.Sprintf("the channel is %q; this device follows %q", c.Channel, want.Channel.Name)}
	}
	followed, err := install.FollowKeyring(ctx, f.dev, f.from, f.document, c.Keyring)
	if followed {
		_, signed, err = f.from.Trust.OpenChannel(doc, sig)
	}
	if err != nil {
		return nil, nil, err
	}
	v := &Verdict{Channel: c.Channel, Created: c.Created, Expires: c.Expires, clock: f.clock(), document: f.document}
	seen := state.Seen{Channel: c.Channel, Created: c.Created, SHA256: signed.SHA256}
	err = f.dev.See(seen, signed.Signers[0].Time, func(before state.Seen) (err error) {
		v.Freshness, err = Judge(c, signed.SHA256, before, f.clock())
		return err
	})
	return channel, v, err
}

func (f *follower) clock() Clock {
	p := f.from.Trust.Policy
	return Clock{Now: p.Time, LowerBound: p.LowerBound}
}

// facts is the device as the choice sees it.
func (f *follower) facts(ctx context.Context) (Device, error) {
	d := Device{Floor: f.dev.Floor(), Failed: map[string]int64{}, Refused: map[string]string{}, Now: f.clock().Now}
	var err error
	if d.Identifier, err = f.identifier(); err != nil {
		return d, err
	}
	st, err := f.dev.BootState(ctx)
	if err != nil {
		return d, err
	}
	remembered := f.dev.State().Fleet
	if st.Booted != "" {
		d.Running = heldOf(f.dev.Release(st.Booted))
	}
	if t := remembered.Trial; t.Slot == st.Next && t.Slot != st.Booted && !t.Ended {
		d.Next = heldOf(f.dev.Release(st.Next))
	}
	for _, n := range remembered.Failures {
		d.Failed[n.Release] = n.Attempt
	}
	return d, nil
}

func (f *follower) identifier() (string, error) { return device.Identifier("/", f.dev.Config) }

func heldOf(r update.Record) Held {
	return Held{Identity: r.Release, Version: r.Version, RollbackIndex: r.RollbackIndex}
}

// open reads and accepts the document of a release.
func (f *follower) open(ctx context.Context, document string) (*release.Release, error) {
	doc, sig, err := f.from.Document(ctx, release.TypeRelease, document, "")
	if err != nil {
		return nil, err
	}
	c := f.dev.Config
	opened, err := update.AcceptRelease(doc, sig, update.Conditions{
		Policy: f.from.Trust.Policy, Product: c.Product, Hardware: device.Hardware("/", c), Floor: f.dev.Floor(),
	})
	if err != nil {
		return nil, err
	}
	return opened.Release, nil
}

// excludes reads the document of a release and returns why it is not for this device, "" if it is.
func (f *follower) excludes(ctx context.Context, channel *release.Channel, e release.Entry, running Held) (string, error) {
	rel, err := f.open(ctx, install.Beside(f.document, e.Path))
	if err == nil {
		if err := channel.Check(e, rel); err != nil {
			return "", err
		}
		err = install.FitsSlots(rel, f.dev.Config)
	}
	if excluded(err) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	own := f.dev.Release(f.dev.Booted())
	order := release.Order{RollbackIndex: own.RollbackIndex, Created: own.Created}
	listed := slices.ContainsFunc(channel.Contents().Releases, func(e release.Entry) bool { return e.Identity == running.Identity })
	if !listed && running.Identity != "" && !rel.Order().Newer(order) {
		return "it was created no later than the running release", nil
	}
	return "", nil
}

// excluded reports whether a release is only not for this device, so that another one may be.
func excluded(err error) bool {
	_, hardware := errors.AsType[*update.HardwareError](err)
	_, expired := errors.AsType[*update.ExpiredError](err)
	_, slots := errors.AsType[*release.SlotError](err)
	return hardware || expired || slots
}
