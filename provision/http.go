package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Doer sends a request. http.Client is one.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Web sends what a line has for its servers, and tries again what may be repeated. The zero value does not retry.
type Web struct {
	Client  Doer
	Station string
	Tries   int           // 0 is one
	Pause   time.Duration // before the second try; it doubles
	Timeout time.Duration // of one try; 0 is 30 s
}

// AnswerError is an answer that is no success.
type AnswerError struct {
	URL    string
	Status int
	Body   string // its beginning
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.URL, e.Status, e.Body)
}

// again tells whether the same request may succeed later.
func (e *AnswerError) again() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 20

// post sends body until it is answered with success or a refusal, or the tries are used up.
func (w *Web) post(ctx context.Context, url, kind string, body []byte, header map[string]string) ([]byte, error) {
	pause := w.Pause
	for try := 1; ; try++ {
		answer, err := w.once(ctx, url, kind, body, header)
		refused, isAnswer := errors.AsType[*AnswerError](err)
		if err == nil || isAnswer && !refused.again() || try >= w.Tries {
			return answer, err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (w *Web) once(ctx context.Context, url, kind string, body []byte, header map[string]string) ([]byte, error) {
	timeout := w.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := w.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("%s answered with more than %d bytes", url, maxAnswer)
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, &AnswerError{URL: url, Status: res.StatusCode, Body: strings.ToValidUTF8(strings.TrimSpace(string(answer[:min(len(answer), 200)])), "?")}
	}
	return answer, nil
}

// HTTPAllocator asks a server of the line: POST URL/reserve, URL/commit and URL/release with a [Request] as JSON.
// reserve answers with a [Reservation]; 409 says that none is left. The server keeps the contract of [Allocator].
type HTTPAllocator struct {
	URL string
	Web *Web
}

// Request is what an HTTP allocator is asked.
type Request struct {
	Station string `json:"station"`
	Claim
	Serial string `json:"serial,omitempty"` // for commit and release
}

// Reserve implements Allocator.
func (a *HTTPAllocator) Reserve(ctx context.Context, c Claim) (Reservation, error) {
	answer, err := a.ask(ctx, "reserve", c, "")
	var r Reservation
	if refused, ok := errors.AsType[*AnswerError](err); ok && refused.Status == http.StatusConflict {
		return r, fmt.Errorf("%w: %w", ErrNoSerial, err)
	}
	if err != nil {
		return r, fmt.Errorf("reserving a serial: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(answer))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil || r.Serial == "" {
		return r, fmt.Errorf("reserving a serial: %s answered with no reservation: %w", a.URL, err)
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

func (a *HTTPAllocator) ask(ctx context.Context, what string, c Claim, serial string) ([]byte, error) {
	body, err := json.Marshal(Request{Station: a.Web.Station, Claim: c, Serial: serial})
	if err != nil {
		return nil, err
	}
	return a.Web.post(ctx, strings.TrimSuffix(a.URL, "/")+"/"+what, "application/json", body, nil)
}

// AllocatorHandler serves an allocator to [HTTPAllocator], for a line server.
func AllocatorHandler(a Allocator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Request
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAnswer))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&q); err != nil || r.Method != http.MethodPost || q.Unit == "" {
			http.Error(w, "expected a POST of a request", http.StatusBadRequest)
			return
		}
		var err error
		var answer any = struct{}{}
		switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:] {
		case "reserve":
			answer, err = a.Reserve(r.Context(), q.Claim)
		case "commit":
			err = a.Commit(r.Context(), q.Claim, q.Serial)
		case "release":
			err = a.Release(r.Context(), q.Claim, q.Serial)
		default:
			http.NotFound(w, r)
			return
		}
		switch {
		case errors.Is(err, ErrNoSerial):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		}
	})
}
