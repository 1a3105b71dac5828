package boot

import (
	"context"
	"fmt"
)

// SyncFirst returns b with a call of sync before every Activate and [RestoreFallback]. It is for boot loaders that read files: they do not
// replay a journal, so a kernel or boot entry on ext4 that was written, fsynced and renamed only becomes visible to them
// when the whole file system is synced (syncfs(2)). If sync fails, nothing is activated and the error wraps [ErrState].
func SyncFirst(b Backend, sync func() error) Backend { return &synced{b, sync} }

type synced struct {
	Backend
	sync func() error
}

// Activate implements [Backend].
func (s *synced) Activate(ctx context.Context, slot string, tries int) error {
	if err := s.syncFiles(); err != nil {
		return err
	}
	return s.Backend.Activate(ctx, slot, tries)
}

func (s *synced) syncFiles() error {
	if err := s.sync(); err != nil {
		return fmt.Errorf("%w: syncing the files that the boot loader reads: %w", ErrState, err)
	}
	return nil
}
