package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// A FetchError reports a failed HTTP exchange.
type FetchError struct {
	Op     string // "fetching" or "posting to"
	URL    string // as printed by [Redact]
	Offset int64  // bytes of the file received before the failure
	Status int    // of the HTTP answer that caused it, 0 if the cause was something else
	Err    error
}

func (e *FetchError) Error() string {
	if e.Offset == 0 {
		return fmt.Sprintf("%s %s: %v", e.Op, e.URL, e.Err)
	}
	return fmt.Sprintf("%s %s at byte %d: %v", e.Op, e.URL, e.Offset, e.Err)
}

func (e *FetchError) Unwrap() error { return e.Err }

// refusal is an answer or a redirect that a retry cannot improve.
type refusal struct {
	status int // of the answer, or 0
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refusef(format string, a ...any) error { return &refusal{reason: fmt.Sprintf(format, a...)} }

// refuseStatus refuses an answer for its status. The reason phrase of the server is not repeated.
func refuseStatus(status int) error {
	return &refusal{status: status, reason: fmt.Sprintf("the server answers %d %s", status, http.StatusText(status))}
}

// Causes that end a request or a download.
var (
	errStalled = errors.New("the server sends nothing")
	errTimeout = errors.New("the download exceeds its time limit")
)

// plain removes the wrapping of net/http, which repeats the address with its query.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// isFinal reports whether a retry cannot help.
func isFinal(err error) bool {
	if _, ok := errors.AsType[*refusal](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "remote error" // a TLS alert: the server refuses us
}

// isBusy reports whether a status asks for a later retry (RFC 9110, section 15; RFC 8470).
func isBusy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// dislikesRange reports whether a status may be the answer of a server that cannot handle the headers of a range request.
func dislikesRange(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusPreconditionFailed,
		http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented:
		return true
	}
	return false
}
