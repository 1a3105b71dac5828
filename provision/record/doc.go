// Package record keeps a signed record of every unit of a factory line.
//
// It guarantees that a record is on stable storage when [Spool.Append] returns, that the records of a station form one chain in
// which a change, an omission and an exchange are found by [Verify], and that records are delivered in order, each until the
// server has it. A [Latch] on the device is sealed in the same way; a [Gate] opens it only with a token of the factory key.
//
// A spool cannot show that its end was cut off; the server's copy does.
package record
