package config

import "time"

// Build holds the values that the linker stamped into the program.
type Build struct {
	Version string
	Time    time.Time // when the sources were committed: the floor of the trusted clock; zero when it was not stamped
}
