package blockdev_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"updater/blockdev"
	"updater/blockdev/gpt"
)

// diskImage makes a disk image of 4 MiB with the partitions rootfs_a and rootfs_b in dir.
func diskImage(dir string) string {
	const size, sector, mib = 4 << 20, 512, 2048
	path := filepath.Join(dir, "disk.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		log.Fatal(err)
	}
	d, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	linux, err := gpt.ParseGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
	if err != nil {
		log.Fatal(err)
	}
	table, err := gpt.New(size/sector, sector, gpt.NewGUID(), []gpt.Entry{
		{Number: 1, Type: linux, GUID: gpt.NewGUID(), First: mib, Last: 2*mib - 1, Name: "rootfs_a"},
		{Number: 2, Type: linux, GUID: gpt.NewGUID(), First: 2 * mib, Last: 3*mib - 1, Name: "rootfs_b"},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := gpt.Write(d, table, gpt.ProtectiveMBR(size/sector)); err != nil {
		log.Fatal(err)
	}
	return path
}

// A slot is opened exclusively, written, flushed, and read back from the medium.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	disk, err := blockdev.OpenDisk(diskImage(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()
	slot, err := disk.Find("PARTLABEL=rootfs_b")
	if err != nil {
		log.Fatal(err)
	}
	dev, err := slot.Open(blockdev.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	w, err := dev.NewWriter(blockdev.WriterOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte("new release"), 0); err != nil {
		log.Fatal(err)
	}
	if err := w.Flush(); err != nil { // on stable storage
		log.Fatal(err)
	}
	got := make([]byte, 11)
	if _, err := w.ReadBackAt(got, 0); err != nil { // past the page cache
		log.Fatal(err)
	}
	fmt.Printf("partition %d of %d bytes: %s\n", slot.Number, slot.Size, got)
	// Output: partition 2 of 1048576 bytes: new release
}

// A partition that is open has no second writer.
func ExampleBusyError() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	disk, err := blockdev.OpenDisk(diskImage(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()
	slot, err := disk.Find("/dev/mmcblk0p1") // partition 1 of the image
	if err != nil {
		log.Fatal(err)
	}
	first, err := slot.Open(blockdev.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	_, err = slot.Open(blockdev.Exclusive)
	if busy, ok := errors.AsType[*blockdev.BusyError](err); ok {
		fmt.Println(busy.By)
	}
	// Output: locked by another process
}
