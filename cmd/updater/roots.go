package main

// The public certificate authorities, for systems without a file of them, such as an initramfs. source.ca replaces them.
import _ "golang.org/x/crypto/x509roots/fallback"
