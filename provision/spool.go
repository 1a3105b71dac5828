package provision

import (
	"bytes"
	"context"
	"crypto"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Spool keeps the records of one station in a folder: one file for each, NNNNNNNN.json, never changed again, and the
// file posted with the number of the last one that the server has. A record is durable when [Spool.Append] returns.
// Safe for concurrent use, also by several processes.
type Spool struct {
	dir string
	key crypto.Signer
	mu  sync.Mutex
}

// OpenSpool opens the folder, and makes it when it is not there.
func OpenSpool(dir string, key crypto.Signer) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, err
	}
	return &Spool{dir: dir, key: key}, nil
}

// Append gives the record its number and its place in the chain, signs it, and makes it durable.
func (s *Spool) Append(r *Record) error {
	return s.locked(func() error {
		last, line, err := s.last()
		if err != nil {
			return err
		}
		r.Kind, r.Format, r.Sequence, r.Previous = "record", 1, last+1, ""
		if line != nil {
			r.Previous = digest(line)
		}
		if r.Time.IsZero() {
			r.Time = time.Now().UTC()
		}
		sealed, err := Seal(r, s.key)
		if err != nil {
			return err
		}
		return writeDurably(s.path(r.Sequence), sealed, 0o644)
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
			return 0, nil, fmt.Errorf("the spool has a file %s that is no record", name)
		}
		n = max(n, i)
	}
	line, err = os.ReadFile(s.path(n))
	return n, line, err
}

// locked keeps other runs of this station away.
func (s *Spool) locked(do func() error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking the spool: %w", err)
	}
	return do()
}

// Lines yields the records of a spool folder as they are on disk, in their order, until one cannot be read.
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

// VerifySpool checks every record of a folder: its signature by one of the keys, its form, its number and the chain.
// It hands each to visit, which may be nil. What was cut off at the end it cannot see; the server's copy shows that.
func VerifySpool(dir string, keys []crypto.PublicKey, visit func(*Record) error) (n int64, err error) {
	previous := ""
	for line, err := range Lines(dir) {
		if err != nil {
			return n, fmt.Errorf("record %d: %w", n+1, err)
		}
		r := new(Record)
		if err := Open(line, "record", r, keys...); err != nil {
			return n, fmt.Errorf("record %d: %w", n+1, err)
		}
		if r.Sequence != n+1 {
			return n, fmt.Errorf("record %d says that it is number %d", n+1, r.Sequence)
		}
		if r.Previous != previous {
			return n, fmt.Errorf("record %d does not follow the one before it: the chain is broken", n+1)
		}
		previous = digest(line)
		n++
		if visit != nil {
			if err := visit(r); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// intend notes durably that a latch is about to be written whose record comes after it.
func (s *Spool) intend(latch string) error {
	return writeDurably(filepath.Join(s.dir, "latching-"+latch), nil, 0o644)
}

// interrupted tells whether a run ended after it wrote this latch and before it kept its record.
func (s *Spool) interrupted(latch string) bool {
	if _, err := os.Stat(filepath.Join(s.dir, "latching-"+latch)); err != nil {
		return false
	}
	found := false
	_, err := VerifySpool(s.dir, []crypto.PublicKey{s.key.Public()}, func(r *Record) error {
		found = found || r.Latch == latch && r.Verdict == Pass
		return nil
	})
	return !found && err == nil // a damaged spool opens no latch
}

// completed forgets what was intended.
func (s *Spool) completed(latch string) {
	_ = os.Remove(filepath.Join(s.dir, "latching-"+latch)) // one that stays does no harm: its record is there
}

// passed is the last record of a serial that passed; nil is none.
func (s *Spool) passed(serial string) (found *Record) {
	_, err := VerifySpool(s.dir, []crypto.PublicKey{s.key.Public()}, func(r *Record) error {
		if r.Verdict == Pass && r.Run == "provision" && r.Identity != nil && r.Identity.Serial == serial {
			found = r
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return found
}

// Deliver posts what the server does not have yet, in order, each as the line that is on disk. A record that the
// server refuses, or that cannot be sent, stays first in line.
func (s *Spool) Deliver(ctx context.Context, url string, web *Web) error {
	return s.locked(func() error {
		posted, err := s.posted()
		if err != nil {
			return err
		}
		last, _, err := s.last()
		if err != nil {
			return err
		}
		for n := posted + 1; n <= last; n++ {
			line, err := os.ReadFile(s.path(n))
			if err != nil {
				return err
			}
			if _, err := web.post(ctx, url, "application/json", line, map[string]string{"Idempotency-Key": digest(line)}); err != nil {
				return fmt.Errorf("sending record %d: %w; it stays in the spool, %d wait", n, err, last-n+1)
			}
			if err := writeDurably(filepath.Join(s.dir, "posted"), []byte(strconv.FormatInt(n, 10)+"\n"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Spool) posted() (int64, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "posted"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the spool's file posted: %w", err)
	}
	return n, nil
}

// ExportCSV writes verified records as a table, one line each.
func ExportCSV(w io.Writer, records []*Record) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"sequence", "time", "station", "operator", "run", "verdict", "code", "serial", "unit", "key", "model", "disk_serial", "cid", "size", "plan", "version", "image_bmap_sha256", "seconds", "retries", "error"}); err != nil {
		return err
	}
	for _, r := range records {
		serial, version, bmaps, seconds := "", "", []string{}, 0.0
		if r.Identity != nil {
			serial = r.Identity.Serial
		}
		for _, i := range r.Images {
			version, bmaps = i.Version, append(bmaps, i.Bmap)
		}
		for _, s := range r.Steps {
			seconds += s.Seconds
		}
		row := []string{
			strconv.FormatInt(r.Sequence, 10), r.Time.Format(time.RFC3339), r.Station, r.Operator, r.Run, string(r.Verdict), strconv.Itoa(r.Code),
			serial, r.Unit.Name, r.Unit.Key, r.Unit.Disk.Model, r.Unit.Disk.Serial, r.Unit.Disk.CID, strconv.FormatInt(r.Unit.Disk.Size, 10),
			r.Plan.Name, version, strings.Join(bmaps, " "), strconv.FormatFloat(seconds, 'f', 1, 64), strconv.Itoa(len(r.Retries)), r.Error,
		}
		for i, cell := range row {
			// A spreadsheet would take these for a formula; models and serials come from the hardware.
			if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				row[i] = "'" + cell
			}
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
