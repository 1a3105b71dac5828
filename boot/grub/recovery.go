package grub

import (
	"fmt"

	"updater/boot"
)

// Recovery is the menu entry to which next_entry is set. The script clears this variable before it boots the entry, so that
// it applies once (grub-reboot(8)).
const Recovery = "recovery"

// NoSlotIsRecovery reports whether the script boots the recovery when no slot has a boot left, as examples/boot/grub/tries.cfg and grub.cfg
// do. RAUC's script gives all slots their tries back instead.
func (s *store) NoSlotIsRecovery() bool { return s.Dialect == Tries }

// RequestRecovery sets next_entry.
func (s *store) RequestRecovery() error {
	r, err := s.load()
	if err != nil {
		return err
	}
	if err := r.env.check("next_entry"); err != nil {
		return fmt.Errorf("%w: environment block %s %w; remove the line with grub-editenv unset", boot.ErrState, s.Area, err)
	}
	r.env.set("next_entry", Recovery)
	return r.write()
}
