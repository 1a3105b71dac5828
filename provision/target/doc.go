// Package target finds the disks of a factory line, refuses those that must not be written, and writes and checks their partition
// tables.
//
// It guarantees that [Select] returns only disks that were named by path or by port and refuses, by name, the system disk and
// every disk that is mounted, held, swapped on, read-only or not listed in the plan. Selecting opens nothing. [Layout.Write]
// is durable and read back when it returns.
//
// A disk may come into use after it was selected: opening it exclusively is the caller's part.
package target
