package scheme

import (
	"context"

	"updater/boot"
)

// RequestRecovery implements [boot.Recoverer] if the store has a method of that name.
func (b *Backend) RequestRecovery(context.Context) error {
	if s, ok := b.store.(interface{ RequestRecovery() error }); ok {
		return s.RequestRecovery()
	}
	return boot.RefuseRecovery()
}
