package device

import (
	"updater/blockdev"
	"updater/boot"
	"updater/state"
)

// BusyError is a partition or disk that is in use.
type BusyError = blockdev.BusyError

// LockedError is a disk whose lock another process holds.
type LockedError = blockdev.LockedError

// StoreError is a state store that cannot be used.
type StoreError = state.Error

// ErrState is wrapped when the boot state cannot be read, understood or written, ErrRefused by requests that would leave the device worse off.
var (
	ErrState   = boot.ErrState
	ErrRefused = boot.ErrRefused
)
