package main

// The public certificate authorities, for where no file of the system has them, as in an initramfs. A private
// one in source.ca replaces them.
import _ "golang.org/x/crypto/x509roots/fallback"
