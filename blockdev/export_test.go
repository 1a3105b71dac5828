package blockdev

// FindDiskIn is [FindDisk] with another sysfs, and other device nodes.
func FindDiskIn(sys, dev, spec string, parts []string) (string, error) {
	return finder{sys, dev}.find(spec, parts)
}
