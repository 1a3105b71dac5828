// Package release reads, writes and opens the signed documents that decide what a device runs: releases, channels and keyrings.
// They are TOML; a bare block map (package bmap) is the release of its one image.
//
// [Parse], [ParseChannel] and [ParseKeyring] return a value only for a complete and consistent document: its type comes first, every
// key is known and appears once, every value is in range, every file name is relative and stays below the document, each role of a
// release appears once without a slot or once for each slot. A value is immutable. Encode writes it in one canonical spelling, which
// parses to an equal value. A document that requires an unknown feature is an [UnsupportedError] before its other keys are read.
//
// [Trust] opens every signed document in the same order: size, signature, type, keys allowed for that type, content, keys
// allowed for each role. It parses exactly the signed bytes, and only after the signature was accepted.
//
// The package does not decide whether a document is for this device, fresh and above the floor: package update does. The device's fleet
// logic selects the next release of a channel. Only [Build] and [WriteArchive] read files; nothing here writes a file or reads the clock.
//
// # The spelling of TOML
//
// The documents are TOML 1.0 in its plain spelling: bare keys, one statement a line, strings in "..." or '...', decimal
// integers, true and false, RFC 3339 times with an offset, arrays of strings (which may span lines), [table] and
// [[table]], comments. Dotted and quoted keys, inline tables, multi-line strings, floats and local times are errors that
// name the line, so two readers cannot disagree on an accepted document. The tests compare this reader with BurntSushi/toml, which
// reads the configuration: it matches keys without regard to case, takes local times, and needs 466 MiB for a document of
// 20 KB that nests 3000 tables around 2000 keys; memory here is bounded by the limits of the documents.
package release
