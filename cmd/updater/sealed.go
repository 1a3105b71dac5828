package main

import (
	"updater/initramfs"
	"updater/verify"
)

// checkSealed refuses every configuration but the one that was packed with a sealed binary, and that one too
// when anything beside it differs from the seal.
func checkSealed(path string) error {
	if !initramfs.Sealed() {
		return nil
	}
	if path != DefaultConfig {
		return &verify.SignatureError{Reason: "this program is sealed with its configuration " + DefaultConfig + ", and takes no other"}
	}
	if err := initramfs.CheckSeal("/"); err != nil {
		return &verify.SignatureError{Reason: "the keyring cannot be trusted", Err: err}
	}
	return nil
}
