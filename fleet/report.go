package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/source"
	"updater/state"
)

// Report is the document that a server gets: the outcome of one install. docs/report.schema.json describes it.
type Report struct {
	Type          string        `json:"type"`   // report
	Format        int           `json:"format"` // 1
	Key           string        `json:"key"`    // the same for every delivery of this report
	Outcome       state.Outcome `json:"outcome"`
	Identifier    string        `json:"identifier"`
	Product       string        `json:"product"`
	Identity      string        `json:"identity"` // of the release
	Version       string        `json:"version,omitempty"`
	RollbackIndex int64         `json:"rollback_index"`
	Install       int64         `json:"install"` // number of the install on this device
	Slot          string        `json:"slot,omitempty"`
	Detail        string        `json:"detail,omitempty"`
	Time          time.Time     `json:"time,omitzero"` // of the device; a lower bound without a clock
	Updater       string        `json:"updater"`       // version of the program
}

// ErrNoReports means that no report waits.
var ErrNoReports = errors.New("nothing to do: no report waits")

// Pending lists the reports of a device that are not delivered yet, the oldest first. Errors: [ErrNoReports], [config.Error], those of the
// device.
func Pending(c *config.Config) ([]Report, error) {
	identifier, err := reporter(c)
	if err != nil {
		return nil, err
	}
	known, err := device.ReadState(c)
	if err == nil && len(known.Fleet.Reports) == 0 {
		err = ErrNoReports
	}
	if err != nil {
		return nil, err
	}
	return documents(c, identifier, known.Fleet.Reports), nil
}

func reporter(c *config.Config) (identifier string, err error) {
	if !c.Reports() {
		return "", config.Errorf("no report.url is configured")
	}
	return device.Identifier("/", c)
}

func documents(c *config.Config, identifier string, pending []state.Report) []Report {
	list := []Report{}
	for _, r := range pending {
		list = append(list, Report{
			Type: "report", Format: 1, Key: Key(identifier, r), Outcome: r.Outcome, Identifier: identifier, Product: c.Product,
			Identity: r.Release, Version: r.Version, RollbackIndex: r.RollbackIndex, Install: r.Install, Slot: r.Slot, Detail: r.Detail,
			Time: r.At, Updater: c.Build.Version,
		})
	}
	return list
}

// Key is the idempotency key of a report: sha256 over identifier, identity of the release, outcome and install number, each ended by 0x00.
func Key(identifier string, r state.Report) string {
	h := sha256.New()
	for _, s := range []string{identifier, r.Release, string(r.Outcome), strconv.FormatInt(r.Install, 10)} {
		h.Write(append([]byte(s), 0))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// RefusedError is a server that did not accept a report, or a hawkBit server that did not answer.
type RefusedError struct {
	URL    string // without secrets
	Status int    // of HTTP
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: the server answered %d, expected 200 to 299", e.URL, e.Status)
}

// Deliver sends every report that waits, the oldest first, and forgets those that the server has accepted (2xx), each durably before the
// next is sent. One that the server refuses stays, and the others are sent; a server that does not answer ends it. sent is how many were
// accepted. Errors: [ErrNoReports], [RefusedError], source.FetchError, [config.Error], those of the device.
func Deliver(ctx context.Context, c *config.Config, in install.Inputs) (sent int, err error) {
	identifier, err := reporter(c)
	if err != nil {
		return 0, err
	}
	dev, err := device.Open(c, device.Options{Purpose: device.Change}) // finds a fallback
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	pending := dev.State().Fleet.Reports
	if len(pending) == 0 {
		return 0, ErrNoReports
	}
	from := install.NewOrigins(c, in, dev.State().Time)
	defer from.Close()
	client, err := from.Client()
	if err != nil {
		return 0, err
	}
	send := func(i int, doc Report) error { return post(ctx, client, c.Report.URL, doc) }
	if c.Report.URL == "" {
		server, err := newHawkbit(c, from, identifier)
		if err != nil {
			return 0, err
		}
		send = func(i int, _ Report) error { return server.deliver(ctx, pending[i]) }
	}
	var refused error
	for i, doc := range documents(c, identifier, pending) {
		switch err := send(i, doc); {
		case isRefused(err):
			refused = err
			continue
		case err != nil:
			return sent, err
		}
		if err := dev.Delivered(pending[i]); err != nil {
			return sent, err
		}
		sent++
	}
	return sent, refused
}

func post(ctx context.Context, client *source.Client, url string, r Report) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	header := map[string]string{"Idempotency-Key": r.Key}
	status, _, err := client.Post(ctx, source.Message{URL: url, Type: "application/json", Body: body, Header: header})
	if err == nil && (status < 200 || status > 299) {
		err = &RefusedError{URL: install.ImageName(url), Status: status}
	}
	return err
}

func isFetch(err error) bool {
	_, ok := errors.AsType[*source.FetchError](err)
	return ok
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*RefusedError](err)
	return ok
}
