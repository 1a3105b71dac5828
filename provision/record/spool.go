package record

import (
	"crypto"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"updater/internal/atomicfile"
	"updater/internal/filelock"
)

// Spool keeps the records of one station in a folder: one file NNNNNNNN.json for each, never changed again, and a file posted with
// the number of the last one that the server has. Safe for concurrent use, also by several processes.
type Spool struct {
	dir string
	key crypto.Signer
	mu  sync.Mutex
}

// OpenSpool opens the folder and creates it if it is missing. key signs the records.
func OpenSpool(dir string, key crypto.Signer) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	return &Spool{dir: dir, key: key}, nil
}

// Append gives the record its number and its place in the chain, seals it and makes it durable.
func (s *Spool) Append(r *Record) error {
	return s.locked(func() error {
		last, line, err := s.last()
		if err != nil {
			return err
		}
		r.Kind, r.Format, r.Sequence, r.Previous = "record", 1, last+1, ""
		if line != nil {
			r.Previous = Digest(line)
		}
		if r.Time.IsZero() {
			r.Time = time.Now().UTC()
		}
		sealed, err := Seal(r, s.key)
		if err != nil {
			return err
		}
		return atomicfile.Write(s.path(r.Sequence), sealed, 0o644)
	})
}

func (s *Spool) path(n int64) string { return filepath.Join(s.dir, fmt.Sprintf("%08d.json", n)) }

// last is the number of the last record and its line; 0 and nil before the first.
func (s *Spool) last() (n int64, line []byte, err error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil || len(names) == 0 {
		return 0, nil, err
	}
	for _, name := range names {
		i, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), ".json"), 10, 64)
		if err != nil || i < 1 || name != s.path(i) {
			return 0, nil, fmt.Errorf("reading the spool: %s is not a record", name)
		}
		n = max(n, i)
	}
	line, err = os.ReadFile(s.path(n))
	return n, line, err
}

// locked excludes other runs of this station.
func (s *Spool) locked(do func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := filelock.Lock(f); err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	return do()
}

// Lines yields the records of a spool folder as they are on disk, in their order, up to the first one that cannot be read.
func Lines(dir string) iter.Seq2[[]byte, error] {
	s := Spool{dir: dir}
	return func(yield func([]byte, error) bool) {
		last, _, err := s.last()
		if err != nil {
			yield(nil, err)
			return
		}
		for n := int64(1); n <= last; n++ {
			line, err := os.ReadFile(s.path(n))
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// ChainError reports that the records of a station cannot be trusted after the first Good ones.
type ChainError struct {
	Good int64
	Err  error
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("reading record %d: %v; the spool is good up to record %d", e.Good+1, e.Err, e.Good)
}
func (e *ChainError) Unwrap() error { return e.Err }

// Verify checks every record of a folder: its signature by one of the keys, its form, its number and the chain. It calls visit,
// which may be nil, with each. It returns the number of good records. Errors: [ChainError], those of visit.
func Verify(dir string, keys []crypto.PublicKey, visit func(*Record) error) (n int64, err error) {
	previous := ""
	for line, err := range Lines(dir) {
		r := new(Record)
		if err == nil {
			err = Unseal(line, "record", r, keys...)
		}
		switch {
		case err != nil:
		case r.Sequence != n+1:
			err = fmt.Errorf("its number is %d, expected %d", r.Sequence, n+1)
		case r.Previous != previous:
			err = fmt.Errorf("it follows a record with sha256 %.16q, expected %.16q: the chain is broken", r.Previous, previous)
		}
		if err != nil {
			return n, &ChainError{Good: n, Err: err}
		}
		previous = Digest(line)
		n++
		if visit != nil {
			if err := visit(r); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Passed returns the last record of a serial that passed, nil if there is none or the spool is damaged.
func (s *Spool) Passed(serial string) (last *Record) {
	_, err := Verify(s.dir, []crypto.PublicKey{s.key.Public()}, func(r *Record) error {
		if r.Verdict == Pass && r.Run == "provision" && r.Identity != nil && r.Identity.Serial == serial {
			last = r
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return last
}
