package qemu

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	ovmfSecure = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfCode   = "/usr/share/OVMF/OVMF_CODE_4M.fd" // Debian's package ovmf
	ovmfVars   = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// Available returns nil when QEMU and OVMF are installed, else an error that names the missing Debian package: the reason of a t.Skip.
func Available() error {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return fmt.Errorf("package qemu-system-x86: %w", err)
	}
	for _, f := range []string{ovmfCode, ovmfVars} {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("package ovmf: %w", err)
		}
	}
	return nil
}

// accel returns UPDATER_VM_ACCEL ("kvm", "tcg", "kvm:tcg"), by default tcg: a /dev/kvm that exists does not always work.
func accel() string {
	if a := os.Getenv("UPDATER_VM_ACCEL"); a != "" {
		return a
	}
	return "tcg"
}

// qemu is the emulator of the architecture.
func (c Config) qemu() string { return "qemu-system-" + c.arch() }

func (c Config) arch() string { return cmp.Or(c.Arch, "x86_64") }

// machines are QEMU's arguments by architecture. The q35's TCO watchdog (ICH9) is strapped to reset, as on real boards: QEMU's default is
// "no reboot". Without highmem=off a 32-bit arm finds no PCI devices; cortex-a57 is much quicker to emulate than max.
var machines = map[string][]string{
	"x86_64":  {"-machine", "q35", "-global", "ICH9-LPC.noreboot=false"},
	"aarch64": {"-machine", "virt", "-cpu", "cortex-a57"},
	"arm":     {"-machine", "virt,highmem=off", "-cpu", "cortex-a15"},
}

// args returns QEMU's command line. Only the serial console and the disks exist, no network and no screen.
func (c Config) args() ([]string, error) {
	machine, ok := machines[c.arch()]
	if !ok {
		return nil, fmt.Errorf("virtual machine %s: unknown architecture %q, expected x86_64, aarch64 or arm", c.Name, c.Arch)
	}
	mem := c.MemMiB
	if mem == 0 {
		mem = 512
	}
	a := append(slices.Clone(machine), "-accel", accel(), "-smp", "1", "-m", strconv.Itoa(mem),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-action", "watchdog=reset",
		"-device", "virtio-rng-pci", // OVMF hands its bytes to the kernel: no boot waits for randomness
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	)
	if c.Kernel == "" && c.OVMFVars == "" && c.Firmware == "" {
		return nil, fmt.Errorf("virtual machine %s: has none of Kernel, OVMFVars and Firmware to boot with", c.Name)
	}
	if c.Firmware != "" {
		a = append(a, "-bios", c.Firmware)
	}
	if c.OVMFVars != "" {
		if err := copyIfMissing(ovmfVars, c.OVMFVars); err != nil {
			return nil, fmt.Errorf("UEFI variables: %w", err)
		}
		code := ovmfCode
		if c.Secure { // only system management mode may write the variables
			code = ovmfSecure
			a = append(a, "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
		}
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+code,
			"-drive", "if=pflash,format=raw,unit=1,file="+escape(c.OVMFVars))
	}
	if c.Kernel != "" {
		a = append(a, "-kernel", c.Kernel, "-append", c.Append)
		if c.Initrd != "" {
			a = append(a, "-initrd", c.Initrd)
		}
	}
	a = append(a, c.Args...) // before the disks, which may need a bus from Args
	for i, d := range c.Disks {
		disk, err := d.args(i)
		if err != nil {
			return nil, fmt.Errorf("virtual machine %s: %w", c.Name, err)
		}
		a = append(a, disk...)
	}
	if c.Kernel != "" { // the kernel boots first
		for i := range a {
			a[i] = bootIndex.ReplaceAllString(a[i], "$1")
		}
	}
	return a, nil
}

var bootIndex = regexp.MustCompile(`^(.*drive=d\d+),bootindex=\d+`)

// buses are the devices by bus; %d is the number of the disk. A USB disk needs a controller in Config.Args.
var buses = map[string][]string{
	"virtio": {"-device", "virtio-blk-pci,drive=d%d,bootindex=%d"},
	"nvme":   {"-device", "nvme,drive=d%d,bootindex=%d"},
	"ahci":   {"-device", "ide-hd,drive=d%d,bootindex=%d"},
	"scsi":   {"-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=d%d,bootindex=%d"},
	"usb":    {"-device", "usb-storage,drive=d%d,bootindex=%d"},
	"sd":     {"-device", "sdhci-pci", "-device", "sd-card,drive=d%d"},
}

func (d Disk) args(i int) ([]string, error) {
	device, ok := buses[cmp.Or(d.Bus, "virtio")]
	if !ok {
		return nil, fmt.Errorf("disk %s: unknown bus %q", d.Path, d.Bus)
	}
	drive := fmt.Sprintf("if=none,id=d%d,format=raw,file=%s", i, escape(d.Path))
	if d.ReadOnly {
		drive += ",readonly=on"
	}
	a := []string{"-drive", drive}
	for _, word := range device {
		a = append(a, strings.ReplaceAll(word, "%d", strconv.Itoa(i)))
	}
	serial := d.Serial
	if serial == "" && d.Bus == "nvme" {
		serial = "none" // NVMe needs a serial number
	}
	if serial != "" {
		a[len(a)-1] += ",serial=" + escape(serial)
	}
	return a, nil
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
