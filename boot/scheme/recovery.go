package scheme

import (
	"context"
	"fmt"

	"updater/boot"
)

// RequestRecovery implements [boot.Recoverer] for a store that has a way.
func (b *Backend) RequestRecovery(context.Context) error {
	if s, ok := b.store.(interface{ RequestRecovery() error }); ok {
		return s.RequestRecovery()
	}
	return fmt.Errorf("%w: this boot loader's state has no word for the recovery; choose it in its menu", boot.ErrRefused)
}
