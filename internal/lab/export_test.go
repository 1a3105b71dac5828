package lab

// Initrd gives tests the initramfs of a slot.
func (k Kernel) Initrd() ([]byte, error) { return k.initrd() }
