package uboot

// Recovery is the variable that asks U-Boot's script for the recovery: it boots it while this is 1, and sets
// it to 0 (and saves the environment) before it does.
const Recovery = "recovery"

// RequestRecovery sets [Recovery] to 1.
func (s *storage) RequestRecovery() error {
	l, err := s.load()
	if err != nil {
		return err
	}
	if l.env.get(Recovery) == "1" {
		return nil
	}
	e := l.env.clone()
	e.set(Recovery, "1")
	return l.save(e)
}
