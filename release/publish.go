package release

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// EntryError reports a channel that contradicts the release that it names. This is a failure of trust: devices select by the
// channel and install by the release.
type EntryError struct {
	Field     string // such as "version"
	Got, Want string // in the release, in the channel
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("release has the %s %q, the channel says %q", e.Field, e.Got, e.Want)
}

// Check refuses a release that is not the one that an entry of the channel names. The error is an [EntryError].
func (c *Channel) Check(e Entry, r *Release) error {
	index := func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, f := range []struct{ field, got, want string }{
		{"product", r.Product(), c.contents.Product},
		{"version", r.Version(), e.Version},
		{"rollback index", index(r.Order().RollbackIndex), index(e.RollbackIndex)},
		{"identity", r.Identity(), e.Identity},
	} {
		if f.got != f.want {
			return &EntryError{Field: f.field, Got: f.got, Want: f.want}
		}
	}
	return nil
}

// Publication describes how a channel offers a release. A zero field keeps its value in an existing entry.
type Publication struct {
	Path      string // of the release document, relative to the channel
	FromIndex int64
	Attempt   int64
	Rollout   *Rollout
}

// With returns the channel with a release appended, or with its existing entry changed. The entry is no longer
// withdrawn. Errors: [EntryError] for a release of another product, [SyntaxError].
func (c *Channel) With(r *Release, p Publication) (*Channel, error) {
	contents := c.Contents()
	i := slices.IndexFunc(contents.Releases, func(e Entry) bool { return e.Identity == r.Identity() })
	if i < 0 {
		i = len(contents.Releases)
		contents.Releases = append(contents.Releases, Entry{
			Identity: r.Identity(), Version: r.Version(), RollbackIndex: r.Order().RollbackIndex, Attempt: 1,
		})
	}
	e := &contents.Releases[i]
	e.Path, e.Withdrawn = p.Path, false
	if p.FromIndex != 0 {
		e.FromIndex = p.FromIndex
	}
	if p.Attempt != 0 {
		e.Attempt = p.Attempt
	}
	if p.Rollout != nil {
		e.Rollout = p.Rollout
	}
	if err := c.Check(*e, r); err != nil {
		return nil, err
	}
	return NewChannel(contents)
}

// Withdraw returns the channel with every release of this identity or version withdrawn, and the number of these.
func (c *Channel) Withdraw(name string) (_ *Channel, n int, err error) {
	contents := c.Contents()
	for i := range contents.Releases {
		if e := &contents.Releases[i]; e.Identity == name || e.Version == name {
			e.Withdrawn = true
			n++
		}
	}
	changed, err := NewChannel(contents)
	return changed, n, err
}

// Renew returns the channel as created at a time and valid for a while. The time is in whole seconds, and later than that
// of the channel, because devices accept neither an older channel nor another one of the same time.
func (c *Channel) Renew(now time.Time, valid time.Duration) (*Channel, error) {
	contents := c.Contents()
	now = now.UTC().Truncate(time.Second)
	if next := contents.Created.Truncate(time.Second).Add(time.Second); now.Before(next) {
		now = next
	}
	contents.Created, contents.Expires = now, now.Add(valid)
	return NewChannel(contents)
}
