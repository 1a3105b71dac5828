package provision

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxCSV bounds a list of serials, in bytes.
const maxCSV = 64 << 20

// CSV is an allocator on a file with a column serial and one column for each variable. The file is only read. What
// became of each serial is appended to a journal beside it, FILE.journal, a JSON line each, flushed before a call
// returns; a line that a power cut tore counts as not written. The journal is locked for each call, so several
// processes may share it.
type CSV struct {
	path string
	mu   sync.Mutex
}

// NewCSV returns the allocator of a file.
func NewCSV(path string) *CSV { return &CSV{path: path} }

// The states of a serial in the journal; one without a line is free.
const (
	stateFree     = "free"
	stateReserved = "reserved"
	stateUsed     = "used"
)

// entry is a line of the journal.
type entry struct {
	Serial string    `json:"serial"`
	State  string    `json:"state"`
	Unit   string    `json:"unit"` // that holds it, or held it last
	Strong bool      `json:"strong"`
	Time   time.Time `json:"time"`
}

// Reserve implements Allocator. A unit gets, in this order: what it has, what its medium holds, what it had before,
// the first serial that nobody had, the first one that was given back.
func (a *CSV) Reserve(_ context.Context, c Claim) (Reservation, error) {
	rows, err := a.rows()
	if err != nil {
		return Reservation{}, err
	}
	var got Reservation
	err = a.locked(func(journal *os.File, states map[string]entry) error {
		mine := func(e entry) bool {
			return e.Unit == c.Unit && (e.State == stateReserved || e.State == stateUsed && c.Strong && e.Strong)
		}
		free := func(e entry) bool { return e.State == "" || e.State == stateFree }
		order := []func(Reservation, entry) bool{
			func(_ Reservation, e entry) bool { return mine(e) },
			func(r Reservation, e entry) bool { return r.Serial == c.Held && free(e) },
			func(_ Reservation, e entry) bool { return e.Unit == c.Unit && free(e) },
			func(_ Reservation, e entry) bool { return e.State == "" },
			func(_ Reservation, e entry) bool { return free(e) },
		}
		for _, fits := range order {
			i := slices.IndexFunc(rows, func(r Reservation) bool { return fits(r, states[r.Serial]) })
			if i < 0 {
				continue
			}
			got = rows[i]
			if mine(states[got.Serial]) {
				return nil
			}
			return appendEntry(journal, entry{Serial: got.Serial, State: stateReserved, Unit: c.Unit, Strong: c.Strong})
		}
		return fmt.Errorf("%s: %w, all %d are taken", a.path, ErrNoSerial, len(rows))
	})
	return got, err
}

// Commit implements Allocator.
func (a *CSV) Commit(_ context.Context, c Claim, serial string) error {
	return a.move(c, serial, stateUsed)
}

// Release implements Allocator.
func (a *CSV) Release(_ context.Context, c Claim, serial string) error {
	return a.move(c, serial, stateFree)
}

// move changes a serial that the unit holds. A used one stays used.
func (a *CSV) move(c Claim, serial, state string) error {
	return a.locked(func(journal *os.File, states map[string]entry) error {
		e := states[serial]
		if e.State == state && e.Unit == c.Unit || e.State == stateUsed && state == stateFree {
			return nil
		}
		if e.State != stateReserved || e.Unit != c.Unit {
			return fmt.Errorf("serial %s is not reserved for %s", serial, c.Unit)
		}
		return appendEntry(journal, entry{Serial: serial, State: state, Unit: c.Unit, Strong: c.Strong})
	})
}

// rows reads the file.
func (a *CSV) rows() ([]Reservation, error) {
	f, err := os.Open(a.path)
	if err != nil {
		return nil, fmt.Errorf("reading the serials: %w", err)
	}
	defer f.Close()
	lines, err := csv.NewReader(io.LimitReader(f, maxCSV)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading the serials: %s: %w", a.path, err)
	}
	column := -1
	if len(lines) > 0 {
		column = slices.Index(lines[0], "serial")
	}
	if column < 0 {
		return nil, fmt.Errorf("reading the serials: %s has no column serial in its first line", a.path)
	}
	seen := map[string]bool{}
	var rows []Reservation
	for i, line := range lines[1:] {
		r := Reservation{Serial: line[column], Variables: map[string]string{}}
		for j, value := range line {
			if j != column {
				r.Variables[lines[0][j]] = value
			}
		}
		if seen[r.Serial] {
			return nil, fmt.Errorf("reading the serials: %s line %d: %s is there twice", a.path, i+2, r.Serial)
		}
		seen[r.Serial] = true
		rows = append(rows, r)
	}
	return rows, nil
}

// locked runs change with the journal locked and its states read.
func (a *CSV) locked(change func(journal *os.File, states map[string]entry) error) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name := a.path + ".journal"
	journal, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the journal of serials: %w", err)
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	if err := unix.Flock(int(journal.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", name, err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil { // the journal's name is durable before its first line
		return err
	}
	data, err := io.ReadAll(io.LimitReader(journal, maxCSV+1))
	if err != nil || len(data) > maxCSV {
		return fmt.Errorf("reading %s of at most %d bytes: %w", name, maxCSV, err)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	if len(whole) < len(data) { // torn by a power cut: it was never confirmed
		if err := journal.Truncate(int64(len(whole))); err != nil {
			return fmt.Errorf("repairing %s: %w", name, err)
		}
	}
	states := map[string]entry{}
	for i, line := range bytes.Split(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n")) {
		if len(whole) == 0 {
			break
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("%s line %d: %w", name, i+1, err)
		}
		states[e.Serial] = e
	}
	return change(journal, states)
}

// appendEntry writes a line and flushes it.
func appendEntry(journal *os.File, e entry) error {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := journal.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", journal.Name(), err)
	}
	if err := journal.Sync(); err != nil {
		return fmt.Errorf("flushing %s: %w", journal.Name(), err)
	}
	return nil
}
