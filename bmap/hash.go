package bmap

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
)

// hashNames lists the values of ChecksumType, for errors.
const hashNames = "sha256, sha512, sha384, sha1 or md5"

// maxDigest is the size of the longest digest in bytes.
const maxDigest = sha512.Size

// An algorithm is a hash by its ChecksumType name.
type algorithm struct {
	name string
	size int // bytes
	new  func() hash.Hash
}

// algorithmByName finds a hash. Names are exact: bmaptool reads any name of Python's hashlib in either case, but writes lower
// case.
func algorithmByName(name string) (algorithm, bool) {
	switch name {
	case "sha256":
		return algorithm{name, sha256.Size, sha256.New}, true
	case "sha512":
		return algorithm{name, sha512.Size, sha512.New}, true
	case "sha384":
		return algorithm{name, sha512.Size384, sha512.New384}, true
	case "sha1":
		return algorithm{name, sha1.Size, sha1.New}, true
	case "md5":
		return algorithm{name, md5.Size, md5.New}, true
	}
	return algorithm{}, false
}
