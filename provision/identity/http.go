package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"updater/source"
)

// HTTPAllocator asks a server of the line: POST URL/reserve, URL/commit and URL/release with a [Request] as JSON. reserve answers
// with a [Reservation], or with status 409 if no serial is left. The server keeps the contract of [Allocator].
type HTTPAllocator struct {
	URL     string
	Station string
	Web     *Web
}

// Request is the body that an HTTPAllocator sends.
type Request struct {
	Station string `json:"station"`
	Claim
	Serial string `json:"serial,omitempty"` // for commit and release
}

// Reserve implements Allocator.
func (a *HTTPAllocator) Reserve(ctx context.Context, c Claim) (Reservation, error) {
	answer, err := a.ask(ctx, "reserve", c, "")
	if refused, ok := errors.AsType[*AnswerError](err); ok && refused.Status == http.StatusConflict {
		return Reservation{}, fmt.Errorf("%w: %w", ErrNoSerial, err)
	}
	if err != nil {
		return Reservation{}, err
	}
	var r Reservation
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.DisallowUnknownFields()
	if err = dec.Decode(&r); err == nil && r.Serial == "" {
		err = errors.New("no serial in it")
	}
	if err != nil {
		return Reservation{}, fmt.Errorf("reading the reservation from %s: %w", source.Redact(a.URL), err)
	}
	return r, nil
}

// Commit implements Allocator.
func (a *HTTPAllocator) Commit(ctx context.Context, c Claim, serial string) error {
	_, err := a.ask(ctx, "commit", c, serial)
	return err
}

// Release implements Allocator.
func (a *HTTPAllocator) Release(ctx context.Context, c Claim, serial string) error {
	_, err := a.ask(ctx, "release", c, serial)
	return err
}

func (a *HTTPAllocator) ask(ctx context.Context, verb string, c Claim, serial string) ([]byte, error) {
	body, err := json.Marshal(Request{Station: a.Station, Claim: c, Serial: serial})
	if err != nil {
		return nil, err
	}
	return a.Web.Post(ctx, source.Message{URL: strings.TrimSuffix(a.URL, "/") + "/" + verb, Type: "application/json", Body: body})
}
