package boot_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
)

// environment is a GRUB environment block in which both slots are good.
const environment = "# GRUB Environment Block\nORDER=A B\nA_LEFT=g\nB_LEFT=g\n"

// backend opens a GRUB environment block of one sector, with slot A running.
func backend() boot.Backend {
	block := fmt.Appendf(nil, "%-512s", environment)
	for i := len(environment); i < len(block); i++ {
		block[i] = '#'
	}
	area := boottest.NewMedium(block).Areas()[0]
	b, err := grub.New(grub.Options{Area: area, Slots: []string{"A", "B"}, Dialect: grub.Tries}, "A")
	if err != nil {
		log.Fatal(err)
	}
	return b
}

// An install makes the inactive slot unbootable, writes it, and activates it last.
func Example() {
	ctx, b := context.Background(), backend()
	if err := b.Invalidate(ctx, "B"); err != nil {
		log.Fatal(err)
	}
	// Here the slot is written and verified.
	if err := b.Activate(ctx, "B", 2); err != nil {
		log.Fatal(err)
	}
	st, err := b.State(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range boot.Forecasts(st) {
		fmt.Println(f)
	}
	// Output:
	// next boot: slot B, which has 1 try left after it
	// the boot after: slot B, which has 0 tries left after it
	// boot 3: slot A, because slot B was not marked good
}

// A request that would leave the device worse off is refused.
func ExampleBackend_refused() {
	b := backend()
	err := b.Invalidate(context.Background(), "A")
	fmt.Println(errors.Is(err, boot.ErrRefused), err)
	// Output: true refused: slot A is running
}

func ExampleBooted() {
	slots := []boot.SlotRoot{
		{Name: "A", Roots: []string{"PARTLABEL=rootfs_a"}},
		{Name: "B", Roots: []string{"PARTLABEL=rootfs_b"}},
	}
	fmt.Println(boot.Booted("root=PARTLABEL=rootfs_b ro quiet", slots))
	fmt.Println(boot.Booted("rauc.slot=A root=PARTLABEL=rootfs_b", slots))
	// Output:
	// B <nil>
	//  boot state: the running slot is ambiguous: rauc.slot=A names slot A, root= names slot B
}
