//go:build vm

package boards

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/boot/boottest"
)

// card is the card of examples/boards/raspberry-pi as an image file, with firmware that follows the rule of the loader model.
type card struct {
	t        *testing.T
	dir, bin string
}

// cardStart is where the partitions of card.sfdisk begin.
var cardStart = map[string]int{"autoboot": 1, "boot A": 17, "boot B": 113, "rootfs A": 210, "rootfs B": 275, "data": 349} // MiB

// TestRaspberryPi: the script makes a card from packages of arm64; on the image file, release 2 is installed and tried once, falls back without a
// good mark, stays with one, and a flag that a power cut loses leaves the old slot. Each slot holds the files that the firmware asks for.
func TestRaspberryPi(t *testing.T) {
	cache, err := filepath.Abs(cmp.Or(os.Getenv("UPDATER_VM_DIR"), "../../build/vm"))
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("../../bin/updater")
	if err != nil {
		t.Fatal(err)
	}
	c := &card{t, t.TempDir(), bin}
	begin := time.Now()
	t.Setenv("DEBIAN", filepath.Join(cache, "debian-raspberry-pi"))
	script, err := filepath.Abs("../../examples/boards/raspberry-pi/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", c.run(script, c.dir))
	t.Logf("built in %.0f s", time.Since(begin).Seconds())
	if got, want := c.file("data", "release.toml"), c.run("cat", "www/2/release.toml"); got != want {
		t.Error("the data partition lacks release 2")
	}

	c.boots("A", "1")
	c.updater("A", "mark", "good")
	c.boots("A", "1")

	// Once, and back: the release never came up, or a reset came before the good mark.
	begin = time.Now()
	c.updater("A", "install", "www/2")
	t.Logf("installed in %.1f s", time.Since(begin).Seconds())
	c.boots("B", "2")
	c.boots("A", "1")
	c.wantStatus("A", "boots next slot A")

	// A power cut before the restart loses the flag.
	c.updater("A", "activate", "B")
	if err := os.Remove(filepath.Join(c.dir, "card.img.tryboot")); err != nil {
		t.Fatal(err)
	}
	c.boots("A", "1")

	// The good mark makes it permanent.
	c.updater("A", "activate", "B")
	c.boots("B", "2")
	c.updater("B", "mark", "good")
	for range 3 {
		c.boots("B", "2")
	}
	c.wantStatus("B", "boots next slot B")

	// Back by hand: tried once, as every change.
	c.updater("B", "rollback")
	c.boots("A", "1")
	c.boots("B", "2")
}

// boots restarts the card by the firmware's rule and checks the files in the partition of its choice.
func (c *card) boots(slot, release string) {
	c.t.Helper()
	flag, set := filepath.Join(c.dir, "card.img.tryboot"), "\x00"
	if os.Remove(flag) == nil { // the firmware clears it before it boots
		set = "\x01"
	}
	got := boottest.Tryboot(&boottest.Disk{Areas: [][]byte{[]byte(c.file("autoboot", "autoboot.txt"))}, Files: map[string]string{"tryboot": set}})
	if got != slot {
		c.t.Fatalf("the firmware boots slot %q; want %s", got, slot)
	}
	boot, root := "boot "+slot, "rootfs "+slot
	part := map[string]string{"A": "72706961-05", "B": "72706961-06"}[slot]
	for line := range strings.Lines(c.file(boot, "config.txt")) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "kernel=")
		if word := strings.Fields(line); len(word) == 3 && word[0] == "initramfs" {
			name, ok = word[1], true
		}
		if ok && c.file(boot, name) == "" {
			c.t.Errorf("%s lacks %s of config.txt", boot, name)
		}
	}
	for _, name := range []string{"start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "bcm2712-rpi-5-b.dtb"} {
		if c.file(boot, name) == "" {
			c.t.Errorf("%s lacks %s", boot, name)
		}
	}
	if line := c.file(boot, "cmdline.txt"); !strings.Contains(line, "root=PARTUUID="+part+" ") || strings.Count(line, "\n") != 1 {
		c.t.Errorf("cmdline.txt of %s is %q", boot, line)
	}
	ext4 := fmt.Sprintf("card.img?offset=%d", cardStart[root]<<20)
	if got := c.run("debugfs", "-R", "cat /etc/release", ext4); !strings.HasSuffix(got, "\n"+release+"\n") {
		c.t.Errorf("%s holds %q; want release %s", root, got, release)
	}
}

// file reads a file of a FAT partition.
func (c *card) file(partition, name string) string {
	c.t.Helper()
	return c.run("mtype", "-i", fmt.Sprintf("card.img@@%dM", cardStart[partition]), "::"+name)
}

// updater runs the program on the card as the system of a slot.
func (c *card) updater(booted string, args ...string) string {
	c.t.Helper()
	return c.run(c.bin, append(args, "--config", "bench.toml", "--booted", booted)...)
}

func (c *card) wantStatus(booted, want string) {
	c.t.Helper()
	if out := c.updater(booted, "status"); !strings.Contains(out, want) {
		c.t.Errorf("status: %s\nwant %q", out, want)
	}
}

func (c *card) run(name string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), name, args...)
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}
