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
