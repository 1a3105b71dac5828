package device

import (
	"updater/blockdev"
	"updater/boot"
	"updater/state"
)

// The errors of the organs of a device, for callers that know the device only.
type (
	BusyError   = blockdev.BusyError   // a partition or disk is in use
	LockedError = blockdev.LockedError // another process holds a lock
	StoreError  = state.Error          // the state store cannot be used
)

// ErrState is wrapped when the boot state cannot be read, understood or written, ErrRefused by requests that would leave the device worse off.
var (
	ErrState   = boot.ErrState
	ErrRefused = boot.ErrRefused
)
