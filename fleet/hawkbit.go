package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"updater/device/config"
	"updater/install"
	"updater/release"
	"updater/source"
	"updater/state"
)

// hawkbit is the Direct Device Integration API of Eclipse hawkBit (org.eclipse.hawkbit.ddi, DdiRootController) from the side of one device.
// Nothing that it answers is trusted: it names an action and a document, and the document's signature decides.
type hawkbit struct {
	client *source.Client
	base   string // of this device
}

func newHawkbit(c *config.Config, from *install.Origins, identifier string) (*hawkbit, error) {
	client, err := from.Client()
	if err != nil {
		return nil, err
	}
	h := c.Channel.Hawkbit
	name := h.Controller
	if name == "" {
		name = identifier
	}
	base := strings.TrimSuffix(h.URL, "/") + "/" + url.PathEscape(h.Tenant) + "/controller/v1/" + url.PathEscape(name)
	return &hawkbit{client: client, base: base}, nil
}

// links are the links of an answer, by name.
type links map[string]struct {
	Href string `json:"href"`
}

// action is a task of the server for a device.
type action struct {
	id        int64
	cancelled bool   // the server cancels it
	document  string // address of the release document; "" if it has none
	mayUpdate bool   // the switch is allowed now
	mayFetch  bool   // the download is allowed now
	window    bool   // the switch waits for a maintenance window
}

// deployment is the answer to deploymentBase. Members that are left out are not needed.
type deployment struct {
	ID         string `json:"id"`
	Deployment struct {
		Download string `json:"download"`
		Update   string `json:"update"`
		Window   string `json:"maintenanceWindow"`
		Chunks   []struct {
			Artifacts []struct {
				Filename string `json:"filename"`
				Links    links  `json:"_links"`
			} `json:"artifacts"`
		} `json:"chunks"`
	} `json:"deployment"`
}

// poll asks for the action of the device; nil means none. attributes are sent when the server asks for them.
func (h *hawkbit) poll(ctx context.Context, attributes map[string]string) (*action, error) {
	l, err := h.links(ctx)
	if err != nil {
		return nil, err
	}
	if config, ok := l["configData"]; ok {
		if err := h.send(ctx, http.MethodPut, config.Href, map[string]any{"mode": "merge", "data": attributes}); err != nil {
			return nil, err
		}
	}
	if a, err := h.cancelled(ctx, l); a != nil || err != nil {
		return a, err
	}
	base, ok := l["deploymentBase"]
	if !ok {
		return nil, nil
	}
	var d deployment
	if err := h.get(ctx, base.Href, &d); err != nil || d.ID == "" {
		return nil, err
	}
	return h.action(d)
}

// links fetches the links that the server has for the device.
func (h *hawkbit) links(ctx context.Context) (links, error) {
	var answer struct {
		Links links `json:"_links"`
	}
	err := h.get(ctx, h.base, &answer)
	return answer.Links, err
}

// cancelled is the action that the server cancels; nil means none.
func (h *hawkbit) cancelled(ctx context.Context, l links) (*action, error) {
	link, ok := l["cancelAction"]
	if !ok {
		return nil, nil
	}
	var cancel struct {
		Action struct {
			StopID string `json:"stopId"`
		} `json:"cancelAction"`
	}
	if err := h.get(ctx, link.Href, &cancel); err != nil {
		return nil, err
	}
	id, err := actionID(cancel.Action.StopID)
	return &action{id: id, cancelled: true}, err
}

func (h *hawkbit) action(d deployment) (*action, error) {
	id, err := actionID(d.ID)
	if err != nil {
		return nil, err
	}
	a := &action{
		id: id, window: d.Deployment.Window != "",
		mayFetch: d.Deployment.Download != "skip", mayUpdate: d.Deployment.Update != "skip" && d.Deployment.Window != "unavailable",
	}
	for _, chunk := range d.Deployment.Chunks {
		for _, f := range chunk.Artifacts {
			if f.Filename != release.DocumentName || a.document != "" {
				continue
			}
			a.document = f.Links["download"].Href
			if a.document == "" {
				a.document = f.Links["download-http"].Href
			}
			if err := h.own(a.document); err != nil {
				return nil, err
			}
			if u, _ := url.Parse(a.document); path.Base(u.Path) != release.DocumentName {
				return nil, fmt.Errorf("hawkbit: %s is at %.200q, expected an address that ends with its name: the images are found beside it",
					release.DocumentName, install.ImageName(a.document))
			}
		}
	}
	return a, nil
}

// actionID is the number of an action. It counts as the attempt of the release.
func actionID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("hawkbit: the action has the id %.40q, expected a positive number", s)
	}
	return id, nil
}

// own refuses an address that is not on the server: it could lead into the device's network. Artifacts elsewhere are reached by redirects,
// which package source confines.
func (h *hawkbit) own(address string) error {
	base, _ := url.Parse(h.base)
	u, err := url.Parse(address)
	if err != nil || u.Scheme != base.Scheme || u.Host != base.Host {
		return fmt.Errorf("hawkbit: the server links to %.200q, expected an address on %s://%s", install.ImageName(address), base.Scheme, base.Host)
	}
	return nil
}

// get reads one answer.
func (h *hawkbit) get(ctx context.Context, address string, into any) error {
	if err := h.own(address); err != nil {
		return err
	}
	status, body, err := h.client.Post(ctx, source.Message{Method: http.MethodGet, URL: address, Header: map[string]string{"Accept": "application/json"}})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return &RefusedError{URL: install.ImageName(address), Status: status}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("hawkbit: the answer of %s: %w", install.ImageName(address), err)
	}
	return nil
}

// hawkbitRetries is how often a server that is busy gets a message.
const hawkbitRetries = 10

// send sends one message, again after a second when the server is busy (409, 429).
func (h *hawkbit) send(ctx context.Context, method, address string, message any) error {
	if err := h.own(address); err != nil {
		return err
	}
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		status, _, err := h.client.Post(ctx, source.Message{Method: method, URL: address, Type: "application/json", Body: body})
		switch busy := status == http.StatusConflict || status == http.StatusTooManyRequests; {
		case err != nil || status >= 200 && status <= 299:
			return err
		case !busy || try == hawkbitRetries:
			return &RefusedError{URL: install.ImageName(address), Status: status}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// outcome is the result of an action for hawkBit.
type outcome struct{ execution, result, detail string }

// An action ends with "closed".
var (
	proceeding = outcome{"proceeding", "none", "being installed"}
	downloaded = outcome{"downloaded", "none", "downloaded and waits for its activation"} // ends an action that asks for no more
	rejected   = outcome{"rejected", "none", ""}                                          // a cancel that comes too late
	succeeded  = outcome{"closed", "success", ""}
	failed     = outcome{"closed", "failure", ""}
)

// feedback reports the outcome of an action.
func (h *hawkbit) feedback(ctx context.Context, a action, o outcome, detail string) error {
	kind := "deploymentBase"
	if a.cancelled {
		kind = "cancelAction"
	}
	message := map[string]any{"id": strconv.FormatInt(a.id, 10), "status": map[string]any{
		"execution": o.execution, "result": map[string]string{"finished": o.result}, "details": []string{clip(detail, maxDetail)},
	}}
	return h.send(ctx, http.MethodPost, fmt.Sprintf("%s/%s/%d/feedback", h.base, kind, a.id), message)
}

// The limits of the server, in bytes.
const (
	maxDetail    = 512
	maxAttribute = 128
)

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// deliver closes the action of a report. An action that the server no longer knows counts as closed.
func (h *hawkbit) deliver(ctx context.Context, r state.Report) error {
	if r.Attempt == 0 {
		return nil // installed by a person
	}
	o := failed
	switch r.Outcome {
	case state.ReportGood:
		o = succeeded
	case state.ReportFailed: // the next run tries again
		o = proceeding
	}
	err := h.feedback(ctx, action{id: r.Attempt}, o, fmt.Sprintf("version %s: %s %s", r.Version, r.Outcome, r.Detail))
	if e, ok := errors.AsType[*RefusedError](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone) {
		return nil
	}
	return err
}
