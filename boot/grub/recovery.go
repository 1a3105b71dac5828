package grub

import "updater/boot"

// Recovery is the menu entry that next_entry names: Debian's and Fedora's variable for one boot, which the
// script clears before it obeys (grub.cfg: grub-reboot(8)).
const Recovery = "recovery"

// RequestRecovery sets next_entry, for the next boot only.
func (s *store) RequestRecovery() error {
	r, _, err := s.Load()
	if err != nil {
		return err
	}
	rec := r.(*record)
	rec.env.set("next_entry", Recovery)
	data, err := rec.env.encode()
	if err != nil {
		return err
	}
	return boot.WriteChanged(rec.Area, rec.raw, data)
}
