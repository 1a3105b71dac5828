package boot

import (
	"context"
	"fmt"
)

// Recoverer is a [Backend] whose boot loader can be told to start the recovery once.
type Recoverer interface {
	// RequestRecovery makes the next boot, and only that, start the recovery. It is durable and was read back
	// when it returns nil, and changes no slot: a boot loader whose script does not know the variable boots
	// as before.
	RequestRecovery(ctx context.Context) error
}

// Spender is a [Backend] that can do to its state what the boot loader does when it boots a slot. Who starts
// a slot without the boot loader has to, or the slot would have a try more than it should.
type Spender interface {
	// SpendTry takes one try of the slot that boots next; it refuses any other. It is durable and was read back
	// when it returns nil.
	SpendTry(ctx context.Context, slot string) error
}

// SpendTry takes a try of a slot. It is [ErrRefused] where only the boot loader itself can.
func SpendTry(ctx context.Context, b Backend, slot string) error {
	if s, ok := b.(*synced); ok {
		b = s.Backend
	}
	if s, ok := b.(Spender); ok {
		return s.SpendTry(ctx, slot)
	}
	return fmt.Errorf("%w: only this boot loader itself counts its boots", ErrRefused)
}

// RequestRecovery asks a backend for the recovery. It is [ErrRefused] where the boot loader has no way.
func RequestRecovery(ctx context.Context, b Backend) error {
	if s, ok := b.(*synced); ok {
		b = s.Backend
	}
	if r, ok := b.(Recoverer); ok {
		return r.RequestRecovery(ctx)
	}
	return fmt.Errorf("%w: this boot loader's state has no word for the recovery; choose it in its menu", ErrRefused)
}
