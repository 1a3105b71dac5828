//go:build !vm

package tutorial

const withQEMU = false
