package release_test

import (
	"fmt"
	"os"

	"updater/release"
)

// A device with two slots takes the variants of one slot, and the images that are for every slot.
func ExampleRelease_ForSlot() {
	doc, err := os.ReadFile("testdata/release.toml")
	if err != nil {
		panic(err)
	}
	r, err := release.Parse(doc) // a device calls Trust.OpenRelease, which checks the signatures first
	if err != nil {
		panic(err)
	}
	device := release.Layout{Slots: []string{"A", "B"}, Roles: []string{"boot", "rootfs"}}
	images, err := r.ForSlot("B", device)
	if err != nil {
		panic(err)
	}
	for _, i := range images {
		fmt.Println(i.Role, i.File)
	}
	_, err = r.ForSlot("B", release.Layout{Slots: []string{"A", "B"}, Roles: []string{"boot", "rootfs", "dtb"}})
	fmt.Println(err)
	// Output:
	// boot boot-b.vfat.zst
	// rootfs images/rootfs.ext4.zst
	// release does not fit slot B: it has no image for "dtb"
}

func ExampleNew() {
	_, err := release.New(release.Contents{Product: "board", Version: "2.1"})
	fmt.Println(err)
	// Output:
	// created: is in the year 1, expected 1970 to 9999
}
