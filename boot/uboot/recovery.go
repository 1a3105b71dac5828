package uboot

// Recovery is the variable that requests the recovery. If it is 1, U-Boot's script sets it to 0, saves the environment and
// boots the recovery.
const Recovery = "recovery"

// RequestRecovery sets [Recovery] to 1.
func (s *storage) RequestRecovery() error {
	l, err := s.load()
	if err != nil {
		return err
	}
	e := l.env.clone()
	e.set(Recovery, "1")
	return l.change(e)
}
