package provisiontest

import (
	"encoding/json"
	"errors"
	"net/http"
	"path"

	"updater/provision/identity"
)

// ServeAllocator serves an allocator to an [identity.HTTPAllocator].
func ServeAllocator(a identity.Allocator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q identity.Request
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&q); err != nil || r.Method != http.MethodPost || q.Unit == "" {
			http.Error(w, "expected a POST of a request", http.StatusBadRequest)
			return
		}
		var err error
		var answer any = struct{}{}
		switch path.Base(r.URL.Path) {
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
		case errors.Is(err, identity.ErrNoSerial):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		}
	})
}
