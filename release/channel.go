package release

import (
	"fmt"
	"time"
)

// ChannelContents are the fields of a channel. Its strings obey the limits of the format once a [Channel] was made of it.
type ChannelContents struct {
	Product  string     `json:"product"`
	Channel  string     `json:"channel"` // its name, such as "stable"
	Created  time.Time  `json:"created"`
	Expires  time.Time  `json:"expires"`
	Releases []Entry    `json:"releases"`
	Keyring  KeyringRef `json:"keyring,omitzero"` // zero: none
}

// Entry is one release of a channel.
type Entry struct {
	Identity      string   `json:"identity"` // of the release, see [Release.Identity]
	Version       string   `json:"version"`
	RollbackIndex int64    `json:"rollback_index"`
	Path          string   `json:"path"`       // of the release document, relative to the channel
	FromIndex     int64    `json:"from_index"` // devices whose rollback index is below it take an earlier entry first
	Attempt       int64    `json:"attempt"`    // from 1; if raised, devices on which the release failed may try it again
	Withdrawn     bool     `json:"withdrawn"`
	Rollout       *Rollout `json:"rollout,omitempty"` // nil: all devices at once
}

// Rollout describes how the share of devices that may take a release grows.
type Rollout struct {
	Start   time.Time `json:"start"`
	Percent int64     `json:"percent"` // of the devices at the start, 0 to 100
	Hours   int64     `json:"hours"`   // in which the share grows to 100 percent; 0 keeps it
}

// maxRolloutHours is ten years.
const maxRolloutHours = 10 * 366 * 24

// Channel is one valid channel. It is immutable and safe for concurrent use. [ParseChannel] and [NewChannel] make it.
type Channel struct{ contents ChannelContents }

// ParseChannel reads a channel document and checks all of it. Errors: [SyntaxError], [TypeError], [UnsupportedError].
func ParseChannel(data []byte) (*Channel, error) {
	c := new(Channel)
	d, err := decode(TypeChannel, data, c.contents.open)
	if err != nil {
		return nil, err
	}
	if err := c.contents.check(); err != nil {
		return nil, d.locate(err)
	}
	return c, nil
}

// NewChannel makes a channel of its contents, by the rules of [ParseChannel]. The error is a [SyntaxError] without a line.
func NewChannel(c ChannelContents) (*Channel, error) {
	channel, err := ParseChannel(c.encode())
	return channel, withoutLine(err)
}

// Encode returns the document in its canonical spelling, see [Release.Encode].
func (c *Channel) Encode() []byte { return c.contents.encode() }

// Contents returns a copy of all fields. Releases is never nil.
func (c *Channel) Contents() ChannelContents {
	contents := c.contents
	contents.Releases = append([]Entry{}, contents.Releases...)
	for i, e := range contents.Releases {
		if e.Rollout != nil {
			contents.Releases[i].Rollout = new(*e.Rollout)
		}
	}
	return contents
}

// open begins a table of a channel document.
func (c *ChannelContents) open(header string) (*table, error) {
	n := len(c.Releases)
	switch header {
	case "":
		return &table{fields: c.fields()}, nil
	case "[[release]]":
		if n == maxEntries {
			return nil, fmt.Errorf("release %d is one too many, expected at most %d", maxEntries+1, maxEntries)
		}
		c.Releases = append(c.Releases, Entry{Attempt: 1})
		return &table{name: entryName(n), fields: c.Releases[n].fields()}, nil
	case "[release.rollout]":
		if n == 0 {
			return nil, fmt.Errorf("table [release.rollout] appears before the first [[release]]")
		}
		r := c.Releases[n-1].Rollout
		if r == nil {
			r = new(Rollout)
			c.Releases[n-1].Rollout = r
		}
		return &table{name: entryName(n-1) + ": rollout", fields: r.fields()}, nil
	case "[keyring]":
		return &table{name: "keyring", fields: c.Keyring.fields()}, nil
	}
	return nil, nil
}

func entryName(i int) string { return fmt.Sprintf("release %d", i+1) }

func (c *ChannelContents) fields() []field {
	return []field{
		text("product", &c.Product, plain(maxLabel)),
		text("channel", &c.Channel, name),
		moment("created", &c.Created),
		moment("expires", &c.Expires),
	}
}

func (e *Entry) fields() []field {
	attempt := integer("attempt", &e.Attempt, 1, maxIndex).opt()
	attempt.zero = func() bool { return e.Attempt == 1 }
	return []field{
		text("identity", &e.Identity, digest),
		text("version", &e.Version, plain(maxLabel)),
		integer("rollback_index", &e.RollbackIndex, 0, maxIndex),
		text("path", &e.Path, path),
		integer("from_index", &e.FromIndex, 0, maxIndex).opt(),
		attempt,
		boolean("withdrawn", &e.Withdrawn).opt(),
	}
}

func (r *Rollout) fields() []field {
	return []field{
		moment("start", &r.Start),
		integer("percent", &r.Percent, 0, 100),
		integer("hours", &r.Hours, 0, maxRolloutHours),
	}
}

func (c *ChannelContents) encode() []byte {
	var e encoder
	e.begin(TypeChannel, c.fields())
	if c.Keyring != (KeyringRef{}) {
		e.table("[keyring]", c.Keyring.fields())
	}
	for i := range c.Releases {
		e.table("[[release]]", c.Releases[i].fields())
		if r := c.Releases[i].Rollout; r != nil {
			e.table("[release.rollout]", r.fields())
		}
	}
	return e.Bytes()
}

// check checks rules over several values. A channel without a release is valid: nothing was published yet.
func (c *ChannelContents) check() error {
	if !c.Expires.After(c.Created) {
		return &SyntaxError{Key: "expires", Msg: "is not after created"}
	}
	seen := map[string]int{}
	for i, e := range c.Releases {
		switch {
		case seen[e.Identity] != 0:
			return &SyntaxError{Key: entryName(i) + ": identity", Msg: fmt.Sprintf("is that of release %d", seen[e.Identity])}
		case e.FromIndex > e.RollbackIndex:
			return &SyntaxError{
				Key: entryName(i) + ": from_index",
				Msg: fmt.Sprintf("is %d, expected at most the rollback index %d", e.FromIndex, e.RollbackIndex),
			}
		}
		seen[e.Identity] = i + 1
	}
	return nil
}
