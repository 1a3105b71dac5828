// Package release reads, writes and opens the signed documents that say what a device runs: releases, channels and
// keyrings. They are TOML; a bare block map (package bmap) is the release of its one image.
//
// What it guarantees. [Parse], [ParseChannel] and [ParseKeyring] return a value only when the document is complete and
// consistent: its type comes first, every key is known and stands once, every value is in range, every file name is
// relative and stays below the document, each role of a release stands once without a slot or once for each slot. A value
// never changes after that. Encode writes it in one canonical spelling, which parses to an equal value. A document that
// asks for a feature this program does not have is an [UnsupportedError] before its other keys are read.
//
// [Trust] opens every signed document in the same order: size, signature, type, keys allowed for that type, content, keys
// allowed for each role. It parses exactly the bytes that were signed, and nothing before the signature was accepted.
//
// What it does not. Whether a document is for this device, fresh and above the floor is decided by package update; which
// release of a channel is next, by the device's fleet logic. Nothing here reads or writes a file or asks the clock, except
// [Build], which makes the release of image files.
//
// # The spelling of TOML
//
// The documents are TOML 1.0 in its plain spelling: bare keys, one statement a line, strings in "..." or '...', decimal
// integers, true and false, RFC 3339 times with an offset, arrays of strings (which may span lines), [table] and
// [[table]], comments. Dotted and quoted keys, inline tables, multi-line strings, floats and local times are errors that
// name the line. Two readers cannot disagree on what is left. The tests compare this reader with BurntSushi/toml, which
// reads the configuration: it matches keys without regard to case, takes local times, and needs 466 MiB for a document of
// 20 KB that nests 3000 tables around 2000 keys; memory here is bounded by the limits of the documents.
package release
