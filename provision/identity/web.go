package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"updater/source"
)

// Poster sends one request and returns the answer whatever its status is. *source.Client is one.
type Poster interface {
	Post(ctx context.Context, m source.Message) (status int, answer []byte, err error)
}

// Web posts to the servers of a line and retries requests that may be repeated.
type Web struct {
	Client Poster
	Tries  int           // 0 is one
	Pause  time.Duration // before the second try; it doubles
}

// AnswerError reports an answer that is not a success.
type AnswerError struct {
	URL    string // without secrets
	Status int
	Body   string // its beginning
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.URL, e.Status, e.Body)
}

// temporary reports whether the same request may succeed later.
func (e *AnswerError) temporary() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

// Post sends m until it is answered with a success or a refusal, or until the tries are used up. The server may get it more than
// once. Errors: [AnswerError], [source.FetchError], the cause of a cancelled context.
func (w *Web) Post(ctx context.Context, m source.Message) ([]byte, error) {
	pause := w.Pause
	for try := 1; ; try++ {
		answer, err := w.once(ctx, m)
		refused, isAnswer := errors.AsType[*AnswerError](err)
		if err == nil || isAnswer && !refused.temporary() || try >= w.Tries {
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

func (w *Web) once(ctx context.Context, m source.Message) ([]byte, error) {
	status, answer, err := w.Client.Post(ctx, m)
	if err != nil {
		return nil, err
	}
	if status/100 != 2 {
		text := strings.ToValidUTF8(strings.TrimSpace(string(answer[:min(len(answer), 200)])), "?")
		return nil, &AnswerError{URL: source.Redact(m.URL), Status: status, Body: text}
	}
	return answer, nil
}
