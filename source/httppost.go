package source

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
)

// A Message is one request and its body.
type Message struct {
	Method string            // "" is POST
	URL    string            // http:// or https://
	Type   string            // Content-Type, such as "application/json"; "" means none
	Body   []byte            //
	Header map[string]string // further header fields, such as Idempotency-Key; may be nil
	Limit  int64             // largest answer to accept, in bytes; 0 is 1 MiB
}

// verb is the Op of a [FetchError] about a message, by whether the message only reads.
var verb = map[bool]string{true: "fetching", false: "posting to"}

// defaultAnswer is the default of Message.Limit.
const defaultAnswer = 1 << 20

// Post sends m in one request and returns the status and the body of the answer, for any status. It does not retry and follows no redirect.
// The whole exchange ends with ctx, and after [HTTPOptions].Stall. Certificates, clock, proxy and token are those of downloads. Errors: [FetchError]; the server
// may have processed the request even then.
func (c *Client) Post(ctx context.Context, m Message) (status int, answer []byte, err error) {
	u, err := httpURL(m.URL)
	if err != nil {
		return 0, nil, err
	}
	ctx, stop := context.WithTimeoutCause(ctx, c.o.Stall, errStalled)
	defer stop()
	status, answer, err = c.exchange(ctx, u, m)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return 0, nil, &FetchError{Op: verb[m.Method == http.MethodGet], URL: Redact(m.URL), Err: plain(err)}
	}
	return status, answer, nil
}

func (c *Client) exchange(ctx context.Context, u *url.URL, m Message) (status int, answer []byte, err error) {
	req, err := c.request(ctx, cmp.Or(m.Method, http.MethodPost), u)
	if err != nil {
		return 0, nil, err
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(m.Body)), int64(len(m.Body)) // no GetBody: net/http cannot repeat it
	for name, value := range m.Header {
		req.Header.Set(name, value)
	}
	if m.Type != "" {
		req.Header.Set("Content-Type", m.Type)
	}
	once := &http.Client{Transport: c.http.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := once.Do(req)
	if err != nil {
		return 0, nil, noEOF(plain(err))
	}
	defer resp.Body.Close()
	limit := m.Limit
	if limit == 0 {
		limit = defaultAnswer
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(answer)) > limit {
		err = refusef("the answer is longer than %d bytes", limit)
	}
	return resp.StatusCode, answer, err
}
