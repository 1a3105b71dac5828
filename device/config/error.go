package config

import "fmt"

// Error is a configuration that cannot be used. Nothing was opened or written.
type Error struct {
	Err    error
	Advice string // next step; "" points to the documentation
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *Error) Hint() string {
	if e.Advice == "" {
		return "updater.toml(5) and docs/config.md list every key"
	}
	return e.Advice
}

// Errorf makes an [Error] from a format with the verbs of fmt.Errorf.
func Errorf(format string, a ...any) error { return &Error{Err: fmt.Errorf(format, a...)} }

// RequestError is a request that cannot be carried out as it was made, such as one for a slot that is not configured. Nothing was
// opened or written.
type RequestError struct {
	Err    error
	Advice string // next step; may be empty
}

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *RequestError) Hint() string { return e.Advice }

// Requestf makes a [RequestError] from a format with the verbs of fmt.Errorf.
func Requestf(format string, a ...any) error { return &RequestError{Err: fmt.Errorf(format, a...)} }
