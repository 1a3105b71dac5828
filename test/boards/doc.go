// Package boards tests the whole devices of examples/boards: their scripts build them, QEMU boots them, they update over HTTP, fall back and are
// recovered. Its tests have the build tag vm; those of boards that CI leaves out have the tag boards too ("make boards"). docs/boards.md shows them.
package boards
