package blockdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SyncFlags select the steps of [SyncRange]. The zero value does nothing, which probes for the system call.
type SyncFlags int

// The flags of sync_file_range(2), and the three useful combinations.
const (
	// WaitBefore waits for pages of the range that are already under write-out, and returns their errors. If it fails, the
	// write step of the same call is skipped.
	WaitBefore SyncFlags = unix.SYNC_FILE_RANGE_WAIT_BEFORE
	// Write begins the write-out of dirty pages of the range that are not under write-out. It may
	// block when the request queue is full and never reports an error of the medium by itself.
	Write SyncFlags = unix.SYNC_FILE_RANGE_WRITE
	// WaitAfter waits, after any write step, for all pages of the range, and returns their errors.
	WaitAfter SyncFlags = unix.SYNC_FILE_RANGE_WAIT_AFTER

	// StartAll puts all pages of the range that were dirty at the call under write-out.
	StartAll = WaitBefore | Write
	// WaitStarted waits for a write-out that was started earlier and returns its result.
	WaitStarted = WaitBefore
	// WriteAndWait writes out all pages of the range that were dirty at the call and waits for them.
	// It is the only combination that submits every dirty page (WB_SYNC_ALL, fs/sync.c).
	WriteAndWait = WaitBefore | Write | WaitAfter
)

// SyncRange calls sync_file_range(2) for length bytes of f from off. The kernel rounds off down and the end up to a page. A length
// of 0 does nothing; to the kernel it would mean "to the end of the file".
//
// It neither writes metadata nor flushes the drive's cache, so nothing is durable when it returns: [Device.Sync] is the
// barrier. Errors of the medium are reported once per descriptor, for any range of the file, and only by the two waiting
// flags.
//
// Errors: EBADF; EIO; EINVAL for an unknown flag, a negative or overflowing range; ENOMEM; ENOSPC; ESPIPE if f is neither a
// regular file, a block device, a directory nor a symbolic link; ENOSYS if the kernel lacks the call. Source:
// sync_file_range(2), fs/sync.c.
func SyncRange(f *os.File, off, length int64, flags SyncFlags) error {
	if length == 0 && flags != 0 {
		return nil
	}
	err := ignoringEINTR(func() error { return unix.SyncFileRange(int(f.Fd()), off, length, int(flags)) })
	if err != nil {
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: fmt.Errorf("bytes %d to %d: %w", off, off+length, err)}
	}
	return nil
}

// hasSyncRange probes whether sync_file_range works on f: kernels and compatibility layers may lack it, sandboxes may forbid
// it. Without flags the call only checks its arguments.
func hasSyncRange(f File) bool { return f.SyncRange(0, 0, 0) == nil }

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
