// Package survey looks at a disk, and at the machine that runs from it, and drafts the configuration of a device: partitions that form slots,
// the boot loader by what it leaves on the disk, and the first state that the loader needs.
//
// It only reads. [Survey.Unknown] lists the facts that it could not determine, and the draft marks them. Input is hostile: labels that a
// configuration cannot hold are replaced by PARTUUIDs, and at most [maxNames] names of a file system are looked at.
package survey
