// Command efiprobe is the /init of a test guest: it runs the operations of /plan on the boot slot with boot/efi and efivarfs,
// and prints the output of efibootmgr after each.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"updater/boot/efi"
)

func main() {
	if err := probe(); err != nil {
		fmt.Println("PROBE error:", err)
	}
	fmt.Println("PROBE done.")
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func probe() error {
	for _, m := range []string{"proc", "sysfs", "devtmpfs"} {
		dir := map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"}[m]
		_ = os.MkdirAll(dir, 0o755)
		if err := unix.Mount(m, dir, m, 0, ""); err != nil && err != unix.EBUSY {
			return err
		}
	}
	if f, err := os.Open("/efivarfs.ko"); err == nil {
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("loading efivarfs: %w", err)
		}
		f.Close()
	}
	vars, err := efi.OpenFirmware(efi.Global)
	if err != nil {
		return err
	}
	plan, err := os.Open("/plan")
	if err != nil {
		return err
	}
	o := efi.Options{Vars: vars, Slots: []string{"A", "B"}, Targets: map[string]efi.Target{}}
	booted := ""
	for lines := bufio.NewScanner(plan); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if w[0] == "esp" {
			p := efi.Partition{Number: 1, GUID: w[3]}
			fmt.Sscan(w[1], &p.Start)
			fmt.Sscan(w[2], &p.Size)
			for _, s := range o.Slots {
				o.Targets[s] = efi.Target{Partition: p, Path: `\EFI\slots\` + s + `.efi`, Description: "slot " + s}
			}
			continue
		}
		if w[0] == "booted" {
			booted = w[1]
			continue
		}
		if err := do(o, booted, w); err != nil {
			return fmt.Errorf("%v: %w", w, err)
		}
	}
	return nil
}

// do runs one operation and prints State and the output of efibootmgr.
func do(o efi.Options, booted string, w []string) error {
	ctx := context.Background()
	b, err := efi.New(o, booted)
	if err != nil {
		return err
	}
	switch w[0] {
	case "repair":
		err = b.Repair(ctx)
	case "invalidate":
		err = b.Invalidate(ctx, w[1])
	case "activate":
		err = b.Activate(ctx, w[1], 1)
	case "good":
		err = b.MarkGood(ctx, w[1])
	case "bad":
		err = b.MarkBad(ctx, w[1])
	}
	if err != nil {
		return err
	}
	st, err := b.State(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("PROBE %s: %s\n", strings.Join(w, " "), strings.Join(st.Boots, " "))
	out, err := exec.Command("/efibootmgr").CombinedOutput()
	if err != nil {
		return fmt.Errorf("efibootmgr: %w: %s", err, out)
	}
	names := map[string]string{}
	order, next := "", ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "BootOrder: "):
			order = strings.TrimPrefix(line, "BootOrder: ")
		case strings.HasPrefix(line, "BootNext: "):
			next = strings.TrimPrefix(line, "BootNext: ")
		case strings.HasPrefix(line, "Boot") && len(line) > 10 && (strings.Contains(line, "slot A") || strings.Contains(line, "slot B")):
			names[line[4:8]] = line[strings.Index(line, "slot ")+5:][:1]
		}
	}
	slots := ""
	if names[next] != "" {
		slots = names[next] + " "
	}
	for n := range strings.SplitSeq(order, ",") {
		if names[n] != "" {
			slots += names[n] + " "
		}
	}
	fmt.Printf("TOOL %s: %s\n", strings.Join(w, " "), strings.TrimSpace(slots))
	return nil
}
