package scheme

import (
	"context"

	"updater/boot"
)

// InvalidateLast implements [boot.LastInvalidator] if the store reports that its boot loader starts the recovery without a slot.
func (b *Backend) InvalidateLast(_ context.Context, slot string) error {
	s, ok := b.store.(interface{ NoSlotIsRecovery() bool })
	if !ok || !s.NoSlotIsRecovery() || len(b.slots) != 1 {
		return boot.RefuseLast(slot)
	}
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.change(slot, func(t *Table) error { t.disable(slot); return nil })
}

// RequestRecovery implements [boot.Recoverer] if the store has a method of that name.
func (b *Backend) RequestRecovery(context.Context) error {
	if s, ok := b.store.(interface{ RequestRecovery() error }); ok {
		return s.RequestRecovery()
	}
	return boot.RefuseRecovery()
}
