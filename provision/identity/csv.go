package identity

import (
	"bytes"
	"cmp"
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

	"updater/internal/atomicfile"
	"updater/internal/filelock"
)

// maxCSV is the largest list of serials, and the largest journal, in bytes.
const maxCSV = 64 << 20

// CSV is an allocator on a file with a column serial and one column for each variable. The file is only read. Each change of a
// serial is appended as one JSON line to a journal beside it, FILE.journal, and flushed before a call returns; a line that a
// power cut tore counts as not written. The journal is locked during each call, so several processes may share it.
type CSV struct {
	path string
	mu   sync.Mutex
}

// NewCSV returns the allocator of a file.
func NewCSV(path string) *CSV { return &CSV{path: path} }

// The states of a serial in the journal. A serial without a line is free and was never used.
const (
	stateFree     = "free"
	stateReserved = "reserved"
	stateUsed     = "used"
)

// entry is a line of the journal.
type entry struct {
	Serial string    `json:"serial"`
	State  string    `json:"state"`
	Unit   string    `json:"unit"` // that has it, or had it last
	Strong bool      `json:"strong"`
	Time   time.Time `json:"time"`
}

// Reserve implements Allocator. A unit gets, in order of precedence: the serial it has, the one its medium holds, the one it had
// before, the first one never used, the first one given back.
func (a *CSV) Reserve(_ context.Context, c Claim) (Reservation, error) {
	rows, err := a.rows()
	if err != nil {
		return Reservation{}, err
	}
	var got Reservation
	err = a.locked(func(journal *os.File, states map[string]entry) error {
		i, reserved := choose(rows, states, c)
		if i < 0 {
			return fmt.Errorf("%s: %w: all %d are taken", a.path, ErrNoSerial, len(rows))
		}
		got = rows[i]
		if reserved {
			return nil
		}
		return appendEntry(journal, entry{Serial: got.Serial, State: stateReserved, Unit: c.Unit, Strong: c.Strong})
	})
	return got, err
}

// choose finds the row for a claim, -1 if none is free. reserved reports that the unit has it already.
func choose(rows []Reservation, states map[string]entry, c Claim) (i int, reserved bool) {
	mine := func(e entry) bool {
		return e.Unit == c.Unit && (e.State == stateReserved || e.State == stateUsed && c.Strong && e.Strong)
	}
	free := func(e entry) bool { return e.State == "" || e.State == stateFree }
	for n, fits := range []func(serial string, e entry) bool{
		func(_ string, e entry) bool { return mine(e) },
		func(serial string, e entry) bool { return serial == c.Held && free(e) },
		func(_ string, e entry) bool { return e.Unit == c.Unit && free(e) },
		func(_ string, e entry) bool { return e.State == "" },
		func(_ string, e entry) bool { return free(e) },
	} {
		i := slices.IndexFunc(rows, func(r Reservation) bool { return fits(r.Serial, states[r.Serial]) })
		if i >= 0 {
			return i, n == 0
		}
	}
	return -1, false
}

// Commit implements Allocator.
func (a *CSV) Commit(_ context.Context, c Claim, serial string) error {
	return a.move(c, serial, stateUsed)
}

// Release implements Allocator.
func (a *CSV) Release(_ context.Context, c Claim, serial string) error {
	return a.move(c, serial, stateFree)
}

// move changes a serial that the unit has. A used one stays used.
func (a *CSV) move(c Claim, serial, state string) error {
	return a.locked(func(journal *os.File, states map[string]entry) error {
		e := states[serial]
		if e.State == state && e.Unit == c.Unit || e.State == stateUsed && state == stateFree {
			return nil
		}
		if e.State != stateReserved || e.Unit != c.Unit {
			return fmt.Errorf("serial %s is %s for unit %q, expected reserved for %s", serial, cmp.Or(e.State, stateFree), e.Unit, c.Unit)
		}
		return appendEntry(journal, entry{Serial: serial, State: state, Unit: c.Unit, Strong: c.Strong})
	})
}

// rows reads the list.
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
		return nil, fmt.Errorf("reading the serials: %s: no column serial in the first line", a.path)
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
			return nil, fmt.Errorf("reading the serials: %s line %d: duplicate serial %s", a.path, i+2, r.Serial)
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
	if err := filelock.Lock(journal); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(name)); err != nil { // the journal's name is durable before its first line
		return err
	}
	states, err := readJournal(journal)
	if err != nil {
		return err
	}
	return change(journal, states)
}

// readJournal returns the last state of each serial. It cuts off a line that a power cut tore, which was never confirmed.
func readJournal(journal *os.File) (map[string]entry, error) {
	data, err := io.ReadAll(io.LimitReader(journal, maxCSV+1))
	if err != nil {
		return nil, fmt.Errorf("reading the journal of serials: %w", err)
	}
	if len(data) > maxCSV {
		return nil, fmt.Errorf("reading %s: more than %d bytes", journal.Name(), maxCSV)
	}
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	if len(whole) < len(data) {
		if err := journal.Truncate(int64(len(whole))); err != nil {
			return nil, fmt.Errorf("repairing the journal of serials: %w", err)
		}
	}
	states, n := map[string]entry{}, 0
	for line := range bytes.Lines(whole) {
		n++
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", journal.Name(), n, err)
		}
		states[e.Serial] = e
	}
	return states, nil
}

// appendEntry writes a line durably.
func appendEntry(journal *os.File, e entry) error {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := journal.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing the journal of serials: %w", err)
	}
	if err := journal.Sync(); err != nil {
		return fmt.Errorf("flushing the journal of serials: %w", err)
	}
	return nil
}
