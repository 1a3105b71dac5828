package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"updater/initramfs"
	"updater/initramfs/network"
)

// Recovery is [recovery]: the settings of the initramfs.
type Recovery struct {
	Mode string `toml:"mode"` // install | recover | status, when the kernel command line has none; "" is install
	// Provision allows updater.mode=provision: a signed plan may then write the disk of this device from its first byte.
	Provision bool `toml:"provision"`

	URLs []string `toml:"urls"` // of images, tried after removable media
	IP   []string `toml:"ip"`   // as ip= on the kernel command line, which takes precedence; none is DHCP on every interface

	Nameservers []string `toml:"nameservers"` // before those that DHCP names
	Kexec       Kexec    `toml:"kexec"`
	Key         string   `toml:"key"` // held at boot it requests the recovery: a name such as f8, or a key code
	GPIO        GPIO     `toml:"gpio"`

	Web     bool   `toml:"web"`      // serve a web page while the recovery runs
	WebCode string `toml:"web_code"` // file with its code, PARTITION:/PATH; "" makes one at each boot
}

// CodePlace is the file with the code of the web page; false if none is configured.
func (r Recovery) CodePlace() (p Place, ok bool, err error) {
	if r.WebCode == "" {
		return p, false, nil
	}
	if p, err = parsePlace(r.WebCode, ""); err == nil && p.Mounted() {
		err = fmt.Errorf("%q is below a mount point, expected a partition: PARTLABEL=NAME:/PATH", r.WebCode)
	}
	if err != nil {
		return p, false, Errorf("recovery.web_code: %w", err)
	}
	return p, true, nil
}

// GPIO is a line that requests the recovery when it is active at boot.
type GPIO struct {
	Chip      string `toml:"chip"` // name or label
	Line      uint32 `toml:"line"`
	ActiveLow bool   `toml:"active_low"`
	Pull      string `toml:"pull"` // up, down or ""
}

// Kexec configures how a freshly written slot is started without the firmware. In the command line, {slot} is the name of the
// slot, {partition} the configured name of its partition of Role, and {partition:ROLE} that of another role.
type Kexec struct {
	Role    string `toml:"role"`   // whose partition holds kernel and initrd; "" is the only one
	Kernel  string `toml:"kernel"` // path in the slot; "" is a restart through firmware and boot loader
	Initrd  string `toml:"initrd"`
	Cmdline string `toml:"cmdline"`
}

func (r Recovery) check() error {
	var errs []error
	if r.Mode != "" && !initramfs.ValidMode(r.Mode) {
		errs = append(errs, fmt.Errorf("recovery.mode is %q, expected install, recover or status", r.Mode))
	}
	for _, s := range r.URLs {
		if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, fmt.Errorf("recovery.urls has %q, expected http:// or https://", s))
		}
	}
	if r.Key != "" && initramfs.KeyCode(r.Key) == 0 {
		errs = append(errs, fmt.Errorf("recovery.key is %q, expected a name such as f8 or volumedown, or a key code", r.Key))
	}
	if g := r.GPIO; g != (GPIO{}) && (g.Chip == "" || g.Pull != "" && g.Pull != "up" && g.Pull != "down") {
		errs = append(errs, fmt.Errorf("recovery.gpio: expected chip, line, and pull as up or down, got chip %q and pull %q", g.Chip, g.Pull))
	}
	_, _, err := r.CodePlace()
	return errors.Join(append(errs, r.checkNetwork(), r.Kexec.check(), err)...)
}

func (r Recovery) checkNetwork() error {
	for _, w := range r.IP {
		if _, err := network.ParseIP(w); err != nil {
			return fmt.Errorf("recovery.ip: %w", err)
		}
	}
	for _, n := range r.Nameservers {
		if _, err := netip.ParseAddr(n); err != nil {
			return fmt.Errorf("recovery.nameservers: %w", err)
		}
	}
	return nil
}

// KexecOf is [Kexec] for one slot: the role of the partition with the kernel, and the command line. Errors: [RequestError].
func (c *Config) KexecOf(slot string) (role, cmdline string, err error) {
	k := c.Recovery.Kexec
	if role, err = c.Role(k.Role); err != nil {
		return "", "", err
	}
	own, err := c.Partition(slot, role)
	if err != nil {
		return "", "", err
	}
	words := []string{"{slot}", slot, "{partition}", own}
	for _, s := range c.Slot {
		for r, p := range s.Partitions {
			if s.Name == slot {
				words = append(words, "{partition:"+r+"}", p)
			}
		}
	}
	cmdline = strings.NewReplacer(words...).Replace(k.Cmdline)
	if strings.Contains(cmdline, "{partition") {
		return "", "", Requestf("recovery.kexec.cmdline: %q names a partition that slot %s does not have", cmdline, slot)
	}
	return role, cmdline, nil
}

// checkKexec checks [Kexec] against the slots.
func (c *Config) checkKexec() error {
	if c.Recovery.Kexec.Kernel == "" {
		return nil
	}
	for _, name := range c.SlotNames() {
		if _, _, err := c.KexecOf(name); err != nil {
			if c.Recovery.Kexec.Role == "" && len(c.Slot[0].Roles()) > 1 {
				return fmt.Errorf("recovery.kexec.role is missing: the roles are %s", strings.Join(c.Slot[0].Roles(), ", "))
			}
			return fmt.Errorf("recovery.kexec: %w", err)
		}
	}
	return nil
}

func (k Kexec) check() error {
	if k.Kernel == "" && (k.Role != "" || k.Initrd != "" || k.Cmdline != "") {
		return errors.New("recovery.kexec.kernel is missing")
	}
	if k.Kernel != "" && !strings.Contains(k.Cmdline, "{slot}") && !strings.Contains(k.Cmdline, "{partition") {
		return errors.New("recovery.kexec.cmdline names neither {slot} nor {partition}, so every slot would start the same system")
	}
	return nil
}
