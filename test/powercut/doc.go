// Package powercut holds the proof of the promise that no power cut and no I/O error bricks a device: real installs,
// with the real boot backends, on a disk whose cache is volatile, and every state of it that a cut may leave booted
// by a model of the boot loader. It has tests only; see docs/testing.md.
package powercut
