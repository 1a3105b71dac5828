package config

import (
	"updater/initramfs"
	"updater/verify"
)

// sealedAdvice is the hint for everything that a sealed program refuses.
const sealedAdvice = "build the initramfs again with the configuration and keyring that it is to have"

// checkSealed refuses every configuration except the one that a sealed program was packed with, and also that one when
// anything beside it differs from the seal.
func checkSealed(path string) error {
	if !initramfs.Sealed() {
		return nil
	}
	if path != DefaultPath {
		return &verify.SignatureError{Reason: "this program is sealed with its configuration " + DefaultPath + " and accepts no other", Advice: sealedAdvice}
	}
	if err := initramfs.CheckSeal("/"); err != nil {
		return &verify.SignatureError{Reason: "the keyring cannot be trusted", Advice: sealedAdvice, Err: err}
	}
	return nil
}
