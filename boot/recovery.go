package boot

import (
	"context"
	"fmt"
)

// Recoverer is a [Backend] whose boot loader can start the recovery on request.
type Recoverer interface {
	// RequestRecovery makes the next boot, and only that one, start the recovery. It is durable and was read back
	// when it returns nil. It changes no slot: a boot script that does not know the variable boots as before.
	RequestRecovery(ctx context.Context) error
}

// Spender is a [Backend] that can spend a try as the boot loader does when it boots a slot. A program that starts a slot
// without the boot loader must call it; otherwise the slot gets one try too many.
type Spender interface {
	// SpendTry spends one try of the slot that boots next and refuses any other slot. It is durable and was read
	// back when it returns nil.
	SpendTry(ctx context.Context, slot string) error
}

// SpendTry spends one try of a slot. The error wraps [ErrRefused] if b is not a [Spender].
func SpendTry(ctx context.Context, b Backend, slot string) error {
	if s, ok := unsynced(b).(Spender); ok {
		return s.SpendTry(ctx, slot)
	}
	return fmt.Errorf("%w: only this boot loader itself can count a boot", ErrRefused)
}

// LastInvalidator is a [Backend] whose boot loader starts the recovery when no slot is bootable.
type LastInvalidator interface {
	// InvalidateLast makes the only configured slot unbootable before its first byte changes. Only the recovery may call it: from
	// then on nothing else boots. It is durable and was read back when it returns nil.
	InvalidateLast(ctx context.Context, slot string) error
}

// InvalidateLast makes the only configured slot unbootable. The error wraps [ErrRefused] if b is not a [LastInvalidator].
func InvalidateLast(ctx context.Context, b Backend, slot string) error {
	if l, ok := unsynced(b).(LastInvalidator); ok {
		return l.InvalidateLast(ctx, slot)
	}
	return RefuseLast(slot)
}

// RequestRecovery requests the recovery for the next boot. The error wraps [ErrRefused] if b is not a [Recoverer].
func RequestRecovery(ctx context.Context, b Backend) error {
	if r, ok := unsynced(b).(Recoverer); ok {
		return r.RequestRecovery(ctx)
	}
	return RefuseRecovery()
}

// Restorer is a [Backend] that can make a slot the fallback without a switch.
type Restorer interface {
	// RestoreFallback makes a slot that worked before it was marked bad bootable and good again, behind every other bootable slot. The
	// caller has repaired its content and read it back. It refuses the running slot, the one that boots next, and every slot while none
	// boots next. The change is atomic; it is durable and was read back when it returns nil.
	RestoreFallback(ctx context.Context, slot string) error
}

// RestoreFallback makes a repaired slot the fallback again. The error wraps [ErrRefused] if b is not a [Restorer].
func RestoreFallback(ctx context.Context, b Backend, slot string) error {
	if s, ok := b.(*synced); ok {
		if err := s.syncFiles(); err != nil {
			return err
		}
	}
	if r, ok := unsynced(b).(Restorer); ok {
		return r.RestoreFallback(ctx, slot)
	}
	return fmt.Errorf("%w: this boot loader cannot make slot %s the fallback without a switch; an install activates it", ErrRefused, slot)
}

// unsynced returns the backend that [SyncFirst] wraps, or b itself.
func unsynced(b Backend) Backend {
	if s, ok := b.(*synced); ok {
		return s.Backend
	}
	return b
}
