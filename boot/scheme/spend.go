package scheme

import (
	"context"
	"fmt"

	"updater/boot"
)

var _ boot.Spender = (*Backend)(nil)

// SpendTry implements [boot.Spender].
func (b *Backend) SpendTry(_ context.Context, slot string) error {
	return b.change(slot, func(t *Table) error {
		if next := t.Next(); next != slot {
			return fmt.Errorf("%w: slot %s does not boot next; slot %q does", boot.ErrRefused, slot, next)
		}
		t.spend(slot)
		return nil
	})
}
