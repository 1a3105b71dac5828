package vm

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

const (
	qemu     = "qemu-system-x86_64"
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd" // Debian's package ovmf
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Available returns nil when QEMU and OVMF are installed, else an error that names the missing Debian package: the reason of a t.Skip.
func Available() error {
	if _, err := exec.LookPath(qemu); err != nil {
		return fmt.Errorf("package qemu-system-x86: %w", err)
	}
	for _, f := range []string{ovmfCode, ovmfVars} {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("package ovmf: %w", err)
		}
	}
	return nil
}

// accel is what UPDATER_VM_ACCEL says ("kvm", "tcg", "kvm:tcg"), else tcg: a /dev/kvm that exists is not always one that works.
func accel() string {
	if a := os.Getenv("UPDATER_VM_ACCEL"); a != "" {
		return a
	}
	return "tcg"
}

// args returns QEMU's command line. The machine is a q35 whose TCO watchdog (ICH9) is strapped to reset, as on real boards: QEMU's default
// is "no reboot". Only the serial console and the disks exist, no network and no screen.
func (c Config) args() ([]string, error) {
	mem := c.MemMiB
	if mem == 0 {
		mem = 512
	}
	a := []string{
		"-machine", "q35", "-accel", accel(), "-smp", "1", "-m", strconv.Itoa(mem),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-global", "ICH9-LPC.noreboot=false", "-action", "watchdog=reset",
		"-device", "virtio-rng-pci", // OVMF hands its bytes to the kernel: no boot waits for randomness
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	}
	if c.Kernel == "" && c.OVMFVars == "" {
		return nil, fmt.Errorf("virtual machine %s: neither a kernel nor UEFI variables to boot with", c.Name)
	}
	if c.OVMFVars != "" {
		if err := copyIfMissing(ovmfVars, c.OVMFVars); err != nil {
			return nil, fmt.Errorf("UEFI variables: %w", err)
		}
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+ovmfCode,
			"-drive", "if=pflash,format=raw,unit=1,file="+escape(c.OVMFVars))
	}
	if c.Kernel != "" {
		a = append(a, "-kernel", c.Kernel, "-append", c.Append)
		if c.Initrd != "" {
			a = append(a, "-initrd", c.Initrd)
		}
	}
	for i, d := range c.Disks {
		drive := fmt.Sprintf("if=none,id=d%d,format=raw,file=%s", i, escape(d.Path))
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		device := fmt.Sprintf("virtio-blk-pci,drive=d%d,bootindex=%d", i, i)
		if d.Serial != "" {
			device += ",serial=" + escape(d.Serial)
		}
		a = append(a, "-drive", drive, "-device", device)
	}
	return append(a, c.Args...), nil
}

// escape doubles the commas of a value inside a QEMU option list.
func escape(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == ',' {
			out = append(out, ',')
		}
		out = append(out, s[i])
	}
	return string(out)
}

func copyIfMissing(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
