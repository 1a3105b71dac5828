package config

import (
	"updater/initramfs"
	"updater/verify"
)

// checkSealed refuses every configuration but the one that a sealed program was packed with, and that one too when anything
// beside it differs from the seal.
func checkSealed(path string) error {
	if !initramfs.Sealed() {
		return nil
	}
	if path != DefaultPath {
		return &verify.SignatureError{Reason: "this program is sealed with its configuration " + DefaultPath + " and accepts no other"}
	}
	if err := initramfs.CheckSeal("/"); err != nil {
		return &verify.SignatureError{Reason: "the keyring cannot be trusted", Err: err}
	}
	return nil
}
