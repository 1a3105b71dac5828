package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"updater/internal/filelock"
)

// BusyError reports that a device is in use.
type BusyError struct {
	Device string // name that it was opened by
	By     string // "mounted on /boot", "held by dm-0", ..., as far as the kernel reports it
}

func (e *BusyError) Error() string { return fmt.Sprintf("%s is busy: %s", e.Device, e.By) }

// LockedError reports that another process holds the lock of a disk.
type LockedError struct {
	Disk string
	PID  int           // 0 if unknown
	Age  time.Duration // run time of that process; 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("disk %s is locked by another process", e.Disk)
	}
	if e.Age == 0 {
		return fmt.Sprintf("disk %s is locked by process %d", e.Disk, e.PID)
	}
	return fmt.Sprintf("disk %s is locked by process %d, which has been running for %s", e.Disk, e.PID, e.Age.Round(time.Second))
}

// Lock takes the install lock of the disk, an flock on the disk itself, which also keeps udev away
// (systemd.io/BLOCK_DEVICE_LOCKING). It retries for patience; a shared lock, which udev holds while it probes, gets 10 s. [Disk.Close] and the
// end of the process release it. Errors: [LockedError].
func (d *Disk) Lock(patience time.Duration) error { return lockInstall(d.path, d.f, patience) }

// LockDisk takes the install lock of a disk by its path; the disk needs no partition table. Closing the result releases it.
func LockDisk(path string, patience time.Duration) (io.Closer, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := lockInstall(path, f, patience); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// probing is the time that udev gets, whose lock is shared: a mark-good makes it probe, which takes seconds on a busy machine.
const probing = 10 * time.Second

func lockInstall(path string, f *os.File, patience time.Duration) error {
	err := filelock.LockFor(f, patience)
	if errors.Is(err, filelock.ErrHeld) {
		var wait time.Duration // a lock without a holder was released since
		if _, shared := flockHolder(f); shared {
			wait = probing
		}
		err = filelock.LockFor(f, wait)
	}
	err = locked(path, err)
	if held, ok := errors.AsType[*LockedError](err); ok {
		held.PID, _ = flockHolder(f)
		held.Age = processAge(held.PID)
	}
	return err
}

// bootLockAt is the byte whose lock serializes changes of the boot state. It is beyond every disk and so outside every window.
const bootLockAt = 1 << 62

// LockBoot takes the lock for one change of the boot state, an open file description lock on a byte of the disk's node; unlock
// releases it. It is independent of [Disk.Lock] and retries for patience. Errors: [LockedError].
func (d *Disk) LockBoot(patience time.Duration) (unlock func() error, err error) {
	f, err := os.OpenFile(d.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := locked(d.path, filelock.LockBytesFor(f, bootLockAt, 1, patience)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// locked adds the disk to the error for a lock that another process holds.
func locked(path string, err error) error {
	if errors.Is(err, filelock.ErrHeld) {
		return &LockedError{Disk: path}
	}
	return err
}

// flockHolder returns the process that holds the flock of f's inode, and whether the lock is a shared one, from /proc/locks; 0 is unknown.
func flockHolder(f *os.File) (pid int, shared bool) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0, false
	}
	locks, _ := os.ReadFile("/proc/locks")
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
		if w := strings.Fields(line); len(w) >= 6 && w[1] == "FLOCK" && w[5] == want {
			pid, _ = strconv.Atoi(w[4])
			return pid, w[3] == "READ"
		}
	}
	return 0, false
}

// clockTick is the unit of times in /proc, USER_HZ: 100 for user space on every architecture (proc(5)).
const clockTick = time.Second / 100

// processAge returns the run time of a process; 0 is unknown.
func processAge(pid int) time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name in parentheses may contain anything. starttime is the 20th field after it (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var now unix.Timespec
	if len(fields) < 20 || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	start, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return 0
	}
	return max(time.Duration(now.Nano())-time.Duration(start)*clockTick, clockTick)
}

// lockWindow locks the bytes of a window in a disk image file, with an open file description lock that ends with the descriptor.
// A file that a loop device uses is a [BusyError].
func lockWindow(name string, f *os.File, base, size int64) error {
	if loop := loopOf(f); loop != "" {
		return &BusyError{Device: name, By: "the file is attached to " + loop}
	}
	err := filelock.LockBytesFor(f, base, size, 0)
	if errors.Is(err, filelock.ErrHeld) {
		return &BusyError{Device: name, By: filelock.ErrHeld.Error()}
	}
	return err
}

// loopOf returns the loop device that uses f, "" for none.
func loopOf(f *os.File) string {
	abs, _ := filepath.Abs(f.Name())
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		if dir := filepath.Dir(name); sysText(dir, "backing_file") == abs {
			return "/dev/" + filepath.Base(filepath.Dir(dir))
		}
	}
	return ""
}

// busyBlock returns a BusyError with the user of the block device path, or of one of its partitions.
func busyBlock(name, path string) error {
	busy := &BusyError{Device: name, By: "held by another program"}
	var st unix.Stat_t
	_ = unix.Stat(path, &st) // after an error: device 0:0, which nobody holds
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	if by := heldBy(dir); by != "" {
		busy.By = by
		return busy
	}
	parts, _ := filepath.Glob(dir + "/*/partition")
	for _, p := range parts {
		if by := heldBy(filepath.Dir(p)); by != "" {
			busy.By = fmt.Sprintf("its partition %s is %s", nodeOf(filepath.Dir(p)), by)
			break
		}
	}
	return busy
}

// heldBy returns the user of the block device of a directory in sysfs: a mount, a mapping, swap; "" if none is known.
func heldBy(sys string) string {
	if mount, _ := mountOf(sysText(sys, "dev"), ""); mount != "" {
		return "mounted on " + mount
	}
	if holders, _ := filepath.Glob(sys + "/holders/*"); len(holders) > 0 {
		return "held by " + filepath.Base(holders[0])
	}
	real, _ := filepath.EvalSymlinks(sys)
	if swaps, _ := os.ReadFile("/proc/swaps"); strings.Contains("\n"+string(swaps), "\n"+nodeOf(real)+" ") {
		return "used as swap"
	}
	return ""
}

// MountPoint returns where the block device node path is mounted in this mount namespace, "" if it is not. Of several mounts it
// returns the first whose root is the root of the file system.
func MountPoint(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", nil
	}
	return mountOf(fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))), "/")
}

// mountOf returns the first mount point of a device number whose root in the file system is root; "" is any root.
func mountOf(dev, root string) (string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("reading the mount table: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		// "36 35 98:0 /root /mountpoint options..." (proc_pid_mountinfo(5))
		if w := strings.Fields(line); len(w) > 4 && w[2] == dev && (root == "" || w[3] == root) {
			return unescapeMount(w[4]), nil
		}
	}
	return "", nil
}

// unescapeMountReplacer undoes the octal escapes of the mount table: space, tab, newline, backslash.
var unescapeMountReplacer = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(s string) string { return unescapeMountReplacer.Replace(s) }
