package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"updater/internal/atomicfile"
)

// Deliver sends the records that the server does not have yet, in order, each as the line that is on disk. key identifies a record,
// so that the server may get it twice. A record that cannot be sent stays first in line.
func (s *Spool) Deliver(ctx context.Context, send func(ctx context.Context, line []byte, key string) error) error {
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
			if err := send(ctx, line, Digest(line)); err != nil {
				return fmt.Errorf("sending record %d: %w; %d records stay in the spool", n, err, last-n+1)
			}
			if err := atomicfile.Write(s.postedPath(), []byte(strconv.FormatInt(n, 10)+"\n"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Spool) postedPath() string { return filepath.Join(s.dir, "posted") }

// posted is the number of the last record that the server has.
func (s *Spool) posted() (int64, error) {
	data, err := os.ReadFile(s.postedPath())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", s.postedPath(), err)
	}
	return n, nil
}
