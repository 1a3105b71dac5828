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
	URL    string // as [Redact] prints it
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

// A refusal is an answer that would not become better by asking again.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refusef(format string, a ...any) error { return &refusal{reason: fmt.Sprintf(format, a...)} }

// Causes that end a request, or a download.
var (
	errStalled = errors.New("the server is silent")
	errTimeout = errors.New("it takes longer in all than is allowed")
)

// plain takes away what net/http puts around an error, which repeats the address, with its query.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// isFinal says whether asking again cannot help.
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
	return ok && e.Op == "remote error" // a TLS alert: the server does not want us
}

// isBusy says whether a status asks for another try later (RFC 9110, section 15).
func isBusy(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
