package boot

import (
	"context"
	"fmt"
)

// SyncFirst returns b with sync called before every activation. It is for boot loaders that read files:
// they do not replay a journal, so that a kernel, an entry or a configuration that was written, fsynced and
// renamed on ext4 is not there for them until the whole file system was synced (syncfs(2)). When sync fails
// nothing is activated.
func SyncFirst(b Backend, sync func() error) Backend { return &synced{b, sync} }

type synced struct {
	Backend
	sync func() error
}

// Activate implements [Backend].
func (s *synced) Activate(ctx context.Context, slot string, tries int) error {
	if err := s.sync(); err != nil {
		return fmt.Errorf("%w: syncing the files that the boot loader reads: %w", ErrState, err)
	}
	return s.Backend.Activate(ctx, slot, tries)
}
