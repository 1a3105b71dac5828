// Package fan writes one stream of an image to many targets.
//
// The image is read, decoded and compared with its signed checksums once. The targets share a window of 8 MiB: it bounds how far they
// may be apart, and it is all the memory that a fan uses, except one piece for each target that hangs. A target whose sink fails
// leaves the fan, and so does one that holds up the others for longer than the options allow; neither ends it for the others.
package fan
