package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
)

// Channel is [channel]: where the device learns which releases there are.
type Channel struct {
	URL        string   `toml:"url"`        // of the channel document: an address, or a path
	Mirrors    []string `toml:"mirrors"`    // of the same document, tried in turn when the one before is unavailable or old
	Name       string   `toml:"name"`       // that the document must have; "" is stable
	Identifier string   `toml:"identifier"` // places the device in rollouts; "" is the machine-id, else the serial of the firmware
	Hawkbit    Hawkbit  `toml:"hawkbit"`    // instead of a document
}

// Hawkbit is [channel.hawkbit]: an Eclipse hawkBit server. The token for it is that of [source].
type Hawkbit struct {
	URL        string `toml:"url"` // "" means none
	Tenant     string `toml:"tenant"`
	Controller string `toml:"controller"` // the name of the device there; "" is the identifier
}

// Follows reports whether a channel or a hawkBit server is configured.
func (c *Config) Follows() bool { return c.Channel.URL != "" || c.Channel.Hawkbit.URL != "" }

// Reports reports whether the results of installs are sent to a server.
func (c *Config) Reports() bool { return c.Report.URL != "" || c.Channel.Hawkbit.URL != "" }

// Report is [report]: the server that gets the results of installs.
type Report struct {
	URL string `toml:"url"` // receives one JSON document by POST
}

// Serve is [serve]: how this device serves its releases to other devices.
type Serve struct {
	Listen    string   `toml:"listen"`     // address and port, such as ":8407"; "" serves nothing
	RateLimit ByteSize `toml:"rate_limit"` // of all together, per second; 0 is 1M
}

// minServing is the rate at which the longest range, sent only after all of it was compared, still meets the stall time of a client, in bytes per
// second.
const minServing = 256 << 10

// address parses an http:// or https:// address.
func address(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("it is no http:// or https:// address")
	}
	return u, err
}

// maxIdentifier bounds channel.identifier, in bytes.
const maxIdentifier = 256

// checkFleet checks [channel], [report] and [when].
func (c *Config) checkFleet() error {
	c.Channel.Name = cmp.Or(c.Channel.Name, "stable")
	if n := len(c.Channel.Identifier); n > maxIdentifier {
		return fmt.Errorf("channel.identifier has %d bytes, expected at most %d", n, maxIdentifier)
	}
	if c.Report.URL != "" {
		if _, err := address(c.Report.URL); err != nil {
			return errors.New("report.url is no http:// or https:// address")
		}
	}
	if h := &c.Channel.Hawkbit; h.URL != "" {
		h.Tenant = cmp.Or(h.Tenant, "DEFAULT")
		if u, err := address(h.URL); err != nil || u.RawQuery != "" || u.User != nil {
			return errors.New("channel.hawkbit.url is no http:// or https:// address of a server")
		}
		if c.Channel.URL != "" || c.Report.URL != "" {
			return errors.New("channel.hawkbit excludes channel.url and report.url: the server says what is new, and is told what became of it")
		}
	}
	for _, m := range c.Channel.Mirrors {
		if _, err := address(m); err != nil || c.Channel.URL == "" {
			return errors.New("channel.mirrors are http:// or https:// addresses beside channel.url")
		}
	}
	if err := c.When.check(); err != nil {
		return err
	}
	if r := c.Serve.RateLimit; r != 0 && r < minServing {
		return fmt.Errorf("serve.rate_limit is %d bytes per second, expected at least %d", r, minServing)
	}
	if c.State.Device == "" && (c.Follows() || c.Reports() || c.Serve.Listen != "") {
		return &Error{
			Err:    errors.New("a channel, reports and serving need a state store: it knows what was seen last, what failed here, and what the slots hold"),
			Advice: `add a partition of 1 MiB or more and state = "PARTLABEL=state"`,
		}
	}
	return nil
}
