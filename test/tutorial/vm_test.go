//go:build vm

package tutorial

const withQEMU = true
