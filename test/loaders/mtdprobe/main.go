// Command mtdprobe is the /init of a test guest: it keeps U-Boot's environment in the flash that the kernel
// simulates, with boot/mtd and boot/uboot, and prints the environment that it reads back.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"updater/boot"
	"updater/boot/mtd"
	"updater/boot/uboot"
)

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		_ = unix.Mount(m[0], m[1], m[0], 0, "")
	}
	for _, m := range modules() {
		f, err := os.Open(m)
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
		}
		if err != nil {
			fmt.Println("PROBE error:", m, err)
		}
	}
	nodes, _ := filepath.Glob("/dev/mtd[0-9]")
	for _, node := range nodes {
		if err := probe(node); err != nil {
			fmt.Println("PROBE error:", node, err)
		}
	}
	fmt.Println("PROBE done.")
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// modules are in /modules, named in the order in which they load.
func modules() []string {
	list, _ := filepath.Glob("/modules/*.ko")
	return list
}

func probe(node string) error {
	flash, err := mtd.Open(node, true)
	if err != nil {
		return err
	}
	defer flash.Close()
	fmt.Printf("PROBE %s: %d bytes in blocks of %d\n", node, flash.Size(), flash.EraseSize())
	flags := uboot.Incremental
	if flash.EraseSize() == 128<<10 { // mtdram is NOR by nature
		flags = uboot.Boolean
	}
	const size = 0x2000
	one, err := mtd.New(flash, 0, size, 0)
	if err != nil {
		return err
	}
	two, err := mtd.New(flash, flash.EraseSize(), size, 0)
	if err != nil {
		return err
	}
	env := make([]byte, size)
	copy(env[5:], "BOOT_ORDER=A B\x00BOOT_A_LEFT=3\x00BOOT_B_LEFT=3\x00other=1\x00\x00")
	env[4] = 1
	binary.LittleEndian.PutUint32(env, crc32.ChecksumIEEE(env[5:]))
	if _, err := one.WriteAt(env, 0); err != nil {
		return err
	}
	o := uboot.Options{Areas: []boot.Area{one, two}, Slots: []string{"A", "B"}, Flags: flags}
	ctx := context.Background()
	for _, step := range []struct {
		name string
		do   func(b boot.Backend) error
	}{
		{"repair", func(b boot.Backend) error { return b.Repair(ctx) }},
		{"invalidate", func(b boot.Backend) error { return b.Invalidate(ctx, "B") }},
		{"activate", func(b boot.Backend) error { return b.Activate(ctx, "B", 2) }},
	} {
		b, err := uboot.New(o, "A")
		if err != nil {
			return err
		}
		if err := step.do(b); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		st, err := b.State(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("PROBE %s %s: %s, %d damaged\n", node, step.name, strings.Join(st.Boots, " "), warnings(st))
	}
	return nil
}

func warnings(st boot.State) int {
	n := 0
	for _, f := range st.Findings {
		if f.Severity != boot.Info {
			n++
		}
	}
	return n
}
