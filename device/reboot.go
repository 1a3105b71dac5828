package device

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reboot asks the running system to restart in good order: SIGINT is to init what Ctrl-Alt-Del is, for systemd, SysV init and BusyBox
// (signal(7), reboot(2) on LINUX_REBOOT_CMD_CAD_OFF).
func Reboot() error {
	if err := unix.Kill(1, unix.SIGINT); err != nil {
		return fmt.Errorf("asking init to reboot: %w; the new slot boots at the next restart", err)
	}
	return nil
}
