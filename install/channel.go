package install

import (
	"context"
	"fmt"
	"time"

	"updater/device/config"
	"updater/release"
	"updater/update"
	"updater/verify"
)

// VerifyChannelRequest is one check of a channel on the host that publishes it.
type VerifyChannelRequest struct {
	Config    *config.Config // of a host: the zero value
	Keyring   []string
	Path      string // of the document
	Signature string // "" is beside the document, or in it
}

// ChannelVerdict is a channel that was accepted.
type ChannelVerdict struct {
	Channel     *release.Channel
	Signers     []verify.Signer
	TrustedTime time.Time // the clock that it was judged by
}

// VerifyChannel checks a channel document, and the document of every release in it that is not withdrawn: its signature, and that it matches
// the channel. Errors: those of [release.Trust.OpenChannel], [release.Trust.OpenRelease] and [release.Channel.Check], update.ExpiredError.
func VerifyChannel(ctx context.Context, r VerifyChannelRequest, in Inputs) (*ChannelVerdict, error) {
	policy, err := r.Config.Policy(r.Keyring, time.Time{})
	if err != nil {
		return nil, err
	}
	from := NewOrigins(r.Config, in, time.Time{})
	defer from.Close()
	from.Trust.Policy = policy
	doc, sig, err := from.Document(ctx, release.TypeChannel, r.Path, r.Signature)
	if err != nil {
		return nil, err
	}
	channel, signed, err := from.Trust.OpenChannel(doc, sig)
	if err != nil {
		return nil, err
	}
	contents := channel.Contents()
	if policy.Time.After(contents.Expires) {
		return nil, &update.ExpiredError{Expires: contents.Expires, Now: policy.Time}
	}
	for _, e := range contents.Releases {
		if e.Withdrawn {
			continue
		}
		doc, sig, err := from.Document(ctx, release.TypeRelease, Beside(r.Path, e.Path), "")
		if err != nil {
			return nil, err
		}
		opened, err := from.Trust.OpenRelease(doc, sig)
		if err == nil {
			err = channel.Check(e, opened.Release)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return &ChannelVerdict{Channel: channel, Signers: signed.Signers, TrustedTime: policy.Time.UTC()}, nil
}

// CheckPublished checks an unsigned release as a channel would offer it: the document and the block maps that it pins.
func CheckPublished(path string) (*release.Release, error) {
	r, err := ParseUnverified(path, release.TypeRelease, release.Parse)
	if err != nil {
		return nil, err
	}
	for _, i := range r.Images() {
		data, err := ReadFile(Beside(path, i.Bmap), release.Trust{}.Limit(release.TypeMap))
		if err == nil {
			_, err = r.Map(i, data)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return r, nil
}
