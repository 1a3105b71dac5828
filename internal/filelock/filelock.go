// Package filelock orders the processes that use one file, folder or disk. A lock belongs to the open file: it excludes other descriptors
// of the same process, too, and ends when the file is closed, or with the process.
package filelock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld reports a lock that another holder kept until patience ran out.
var ErrHeld = errors.New("locked by another process")

// retryInterval is the time between two attempts to take a lock.
const retryInterval = 10 * time.Millisecond

// Lock takes an exclusive flock(2) on f. It waits without a limit while another holder has it.
func Lock(f *os.File) error { return lock(f, 0, flock(f, unix.LOCK_EX)) }

// LockFor takes an exclusive flock(2) on f and waits for at most patience. Errors: [ErrHeld].
func LockFor(f *os.File, patience time.Duration) error {
	return lock(f, patience, flock(f, unix.LOCK_EX|unix.LOCK_NB))
}

// LockBytesFor takes an exclusive open file description lock (fcntl(2)) on length bytes of f at off and waits for at most patience. It is
// independent of Lock and LockFor. Errors: [ErrHeld].
func LockBytesFor(f *os.File, off, length int64, patience time.Duration) error {
	return lock(f, patience, func() error {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Start: off, Len: length}
		return os.NewSyscallError("fcntl", unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk))
	})
}

func flock(f *os.File, how int) func() error {
	return func() error { return os.NewSyscallError("flock", unix.Flock(int(f.Fd()), how)) }
}

// lock repeats try until it takes the lock or patience is over.
func lock(f *os.File, patience time.Duration, try func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := try()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EACCES):
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		case !time.Now().Before(deadline):
			return &os.PathError{Op: "lock", Path: f.Name(), Err: ErrHeld}
		}
		time.Sleep(retryInterval)
	}
}
