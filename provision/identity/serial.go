package identity

import (
	"context"
	"errors"
	"strings"
)

// Claim is a unit that asks for its serial.
type Claim struct {
	Unit   string `json:"unit"`           // identifies the hardware, such as cid:1501003...
	Strong bool   `json:"strong"`         // Unit belongs to this hardware alone; otherwise it is only the port
	Held   string `json:"held,omitempty"` // serial that an interrupted run left on the medium
}

// Reservation is the serial of a unit and its variables.
type Reservation struct {
	Serial    string            `json:"serial"`
	Variables map[string]string `json:"variables,omitempty"`
}

// Allocator hands out serials. Reserve gives a unit the same serial until it is released, and no two units the same one, also
// after a power cut and from several processes. Commit spends the serial, Release gives it back. All three may be repeated. Safe
// for concurrent use.
type Allocator interface {
	Reserve(ctx context.Context, c Claim) (Reservation, error)
	Commit(ctx context.Context, c Claim, serial string) error
	Release(ctx context.Context, c Claim, serial string) error
}

// ErrNoSerial reports that an allocator has no serial left.
var ErrNoSerial = errors.New("no serial is left")

// Own is an allocator for units that bring their serial.
type Own func(ctx context.Context, c Claim) (string, error)

// Reserve implements Allocator.
func (o Own) Reserve(ctx context.Context, c Claim) (Reservation, error) {
	serial, err := o(ctx, c)
	return Reservation{Serial: serial}, err
}

// Commit implements Allocator.
func (Own) Commit(context.Context, Claim, string) error { return nil }

// Release implements Allocator.
func (Own) Release(context.Context, Claim, string) error { return nil }

// Fixed gives every unit the same serial, for a plan that is written for one unit.
func Fixed(serial string) Allocator {
	return Own(func(context.Context, Claim) (string, error) { return serial, nil })
}

// Prompt asks a person, or a barcode scanner. An empty answer keeps the serial that the medium holds.
func Prompt(ask func(ctx context.Context, question string) (string, error)) Allocator {
	return Own(func(ctx context.Context, c Claim) (string, error) {
		question := "serial of " + c.Unit
		if c.Held != "" {
			question += " (it holds " + c.Held + ")"
		}
		answer, err := ask(ctx, question)
		if answer = strings.TrimSpace(answer); answer == "" && err == nil {
			answer = c.Held
		}
		return answer, err
	})
}
