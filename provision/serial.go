package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Claim is a unit that asks for its serial.
type Claim struct {
	Unit   string `json:"unit"`           // what the hardware is known by, such as cid:1501003...
	Strong bool   `json:"strong"`         // Unit belongs to this hardware alone; else it is only the place it hangs on
	Held   string `json:"held,omitempty"` // serial that an interrupted run left on the medium
}

// Reservation is what a unit got.
type Reservation struct {
	Serial    string            `json:"serial"`
	Variables map[string]string `json:"variables,omitempty"`
}

// Allocator hands out serials. Reserve gives the same serial to the same unit until it is released, and no two units
// the same one, also after a power cut and from several processes. Commit spends the serial; Release gives it back.
// All three may be repeated. Safe for concurrent use.
type Allocator interface {
	Reserve(ctx context.Context, c Claim) (Reservation, error)
	Commit(ctx context.Context, c Claim, serial string) error
	Release(ctx context.Context, c Claim, serial string) error
}

// ErrNoSerial says that an allocator has none left.
var ErrNoSerial = errors.New("no serial is left")

// pattern is what a serial must match as a whole.
func (r SerialRule) pattern() (*regexp.Regexp, error) {
	if r.Pattern == "" {
		return plainSerial, nil
	}
	return regexp.Compile(`^(?:` + r.Pattern + `)$`)
}

// Check refuses a serial that is not of the plan's form, or that could not stand in a file name or a subject.
func (r SerialRule) Check(serial string) error {
	re, err := r.pattern()
	if err != nil {
		return err
	}
	if !re.MatchString(serial) || !plainSerial.MatchString(serial) {
		return fmt.Errorf("serial %.80q does not match %s", serial, re)
	}
	return nil
}

// source is an allocator for serials that nobody has to give out: the unit brings its own.
type source func(ctx context.Context, c Claim) (string, error)

func (s source) Reserve(ctx context.Context, c Claim) (Reservation, error) {
	serial, err := s(ctx, c)
	return Reservation{Serial: serial}, err
}
func (source) Commit(context.Context, Claim, string) error  { return nil }
func (source) Release(context.Context, Claim, string) error { return nil }

// Fixed gives every unit the same serial, for a plan that is written for one unit.
func Fixed(serial string) Allocator {
	return source(func(context.Context, Claim) (string, error) { return serial, nil })
}

// Prompt asks a person, or the barcode scanner that types like one.
func Prompt(ask func(ctx context.Context, question string) (string, error)) Allocator {
	return source(func(ctx context.Context, c Claim) (string, error) {
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

// Firmware reads the serial of this machine from the device tree or DMI tables below root, which is / on a device.
func Firmware(root, kind string) Allocator {
	paths := map[string][]string{
		"device-tree": {"sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"},
		"dmi":         {"sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial"},
	}[kind]
	return source(func(context.Context, Claim) (string, error) {
		var errs []error
		for _, path := range paths {
			data, err := os.ReadFile(filepath.Join(root, path))
			if text := string(bytes.TrimSpace(bytes.TrimRight(data, "\x00"))); err == nil && text != "" {
				return text, nil
			}
			errs = append(errs, err)
		}
		return "", fmt.Errorf("this machine has no serial in its %s: %w", kind, errors.Join(errs...))
	})
}
