// Package install puts signed images where they belong: into the inactive slot of a device ([Run]), or onto a disk, a partition or a file
// at a workbench ([Copy]). It opens the inputs that a request names (documents, images, addresses, partitions of disk images, hooks) and
// hands them to package update, which holds the order of the steps.
//
// The package guarantees that nothing it opens is trusted before update has accepted the signed documents, and that no device is opened for
// writing before that. The package does not print; progress and warnings go to [Events].
package install
