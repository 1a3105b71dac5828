package doctor

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"updater/boot"
	"updater/device"
	"updater/device/config"
	"updater/verify"
)

// expirySoon is how early the end of a key is reported: time to sign a new one and to distribute it to a fleet.
const expirySoon = 90 * 24 * time.Hour

// unstableNode matches device nodes whose letter depends on the order in which disks are found.
var unstableNode = regexp.MustCompile(`^/dev/(sd|hd)[a-z]+\d*$`)

// checkConfig reports settings that are valid but probably mistakes.
func (d *doctor) checkConfig(context.Context) {
	c := d.config
	if c.Product == "" {
		d.warn("set product", "no product is configured: an update that names one is refused, and one for another board may be installed")
	}
	if c.State.Device == "" {
		d.warn("set state to a small partition", "no state store is configured: an older, vulnerable image can be installed again")
		if len(c.Slot) > 0 && len(c.Slot[0].Roles()) > 1 {
			d.failure("set state to a small partition", "slots of several roles without a state store: a slot of two releases is not noticed")
		}
	}
	for _, s := range c.Slot {
		for _, role := range s.Roles() {
			for _, o := range c.Slot {
				if !slices.Contains(o.Roles(), role) {
					d.failure("give every slot the same roles", "slot %s has role %s, slot %s has none", s.Name, role, o.Name)
				}
			}
			if spec := s.Partitions[role]; unstableNode.MatchString(spec) {
				d.warn("name the partition by PARTLABEL= or PARTUUID=", "slot %s: %s may name another disk when one is plugged in", s.Name, spec)
			}
		}
	}
	for _, k := range c.Trust.Key {
		for _, role := range k.Roles {
			if !slices.ContainsFunc(c.Slot, func(s config.Slot) bool { return slices.Contains(s.Roles(), role) }) {
				d.warn("correct roles", "key %s may sign for role %s, which no slot has", k.Fingerprint, role)
			}
		}
	}
	programs := c.Hooks.Programs()
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		path := programs[key]
		switch info, err := os.Stat(path); {
		case err != nil:
			d.failure("install the program, or remove the key", "%s: %v", key, err)
		case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
			d.failure("chmod 755 it", "%s: %s is not executable", key, path)
		case info.Mode().Perm()&0o022 != 0:
			d.warn("chmod go-w it", "%s: users other than the owner can change %s", key, path)
		}
	}
	for _, f := range []struct{ key, file string }{
		{"source.ca", c.Source.CA}, {"source.client_cert", c.Source.ClientCert}, {"source.client_key", c.Source.ClientKey}, {"source.token_file", c.Source.TokenFile},
	} {
		key, file := f.key, f.file
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		switch {
		case err != nil:
			d.failure("install the file, or remove the key", "%s: %v", key, err)
		case strings.HasSuffix(key, "_key") || strings.HasSuffix(key, "token_file"):
			if info.Mode().Perm()&0o077 != 0 {
				d.warn("chmod 600 it", "%s: users other than the owner can read %s", key, file)
			}
		}
	}
}

// checkKeys judges the keyring as a signature made now would be.
func (d *doctor) checkKeys(context.Context) {
	var known device.Known
	if m, err := device.ReadState(d.config); err == nil {
		known = *m
	}
	for _, path := range d.config.Keyring {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
			d.warn("chmod go-w it", "users other than the owner can change keyring %s", path)
		}
	}
	trust, err := device.TrustOf(d.config, nil, known)
	policy := trust.Policy
	if err != nil {
		d.fail(err)
		return
	}
	if trust.Warning != "" {
		d.warn("correct keyring in the configuration, or updater keyring install the newest one again", "%s", trust.Warning)
	}
	keys, err := policy.Keys()
	if err != nil {
		d.fail(err)
		return
	}
	need, usable := max(policy.MinSigners, 1), 0
	for _, k := range keys {
		who := k.Fingerprint + " (" + k.UserID + ")"
		switch left := k.Expires.Sub(policy.Time); {
		case k.Unusable != "":
			d.warn("add the renewed certificate to the keyring", "key %s cannot sign: %s", who, k.Unusable)
			continue
		case !k.Expires.IsZero() && left < expirySoon:
			d.warn("renew it, and install the certificate on this device before then", "key %s expires on %s, in %d days", who, k.Expires.Format(time.DateOnly), int(left.Hours()/24))
		}
		usable++
	}
	if usable < need {
		d.failure("add valid certificates to the keyring", "%d of the trusted keys can sign now, an update needs %d, so none can be installed", usable, need)
	}
}

// checkClock compares the system clock with times that are known to be past.
func (d *doctor) checkClock(context.Context) {
	now, built := d.Now(), d.config.Build.Time
	floor, what := built, "when this program was built"
	if m, err := device.ReadState(d.config); err == nil && m.Time.After(floor) {
		floor, what = m.Time, "the last trusted time"
	}
	const remedy = "set the clock, also at boot; until then the later time counts"
	switch {
	case now.Year() < 2000:
		d.warn(remedy, "the clock is at %s: it was never set", now.UTC().Format(time.RFC3339))
	case now.Before(floor):
		d.warn(remedy, "the clock is at %s, before %s, %s", now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339), what)
	case !floor.IsZero() && now.Sub(floor) > 10*verify.MaxClockLead:
		d.warn("set the clock; updates that expire look expired", "the clock is at %s, ten years after %s", now.UTC().Format(time.RFC3339), what)
	}
}

// checkFirmware checks that the kernel has what the boot loader's backend needs.
func (d *doctor) checkFirmware(context.Context) {
	if !device.NeedsEFI(d.config) {
		return
	}
	if err := d.EFI(); err != nil {
		d.failure("boot by UEFI, with CONFIG_EFIVAR_FS in the kernel", "%v", err)
	}
}

// checkBoot adds the findings of the backend, and compares its state with the running system.
func (d *doctor) checkBoot(ctx context.Context) {
	dev, err := d.open()
	if err != nil {
		d.fail(err)
		return
	}
	defer dev.Close()
	s, err := dev.Status(ctx)
	if err != nil {
		d.fail(err)
		return
	}
	d.add(slices.DeleteFunc(s.Findings, func(f boot.Finding) bool { return isNew(dev, f) })...)
	d.tries(s)
	if most := dev.MaxTries(); d.config.Boot.Tries > most {
		d.warn("set boot.tries to what it counts", "boot.tries is %d; this boot loader counts %d at most", d.config.Boot.Tries, most)
	}
	if d.config.Boot.Booted != "" && !dev.IsFile() {
		d.warn("remove it; the running slot comes from the kernel command line", "boot.booted is for disk image files, and this is a device")
	}
}

// tries checks the tries of the running slot and of the next one.
func (d *doctor) tries(s *device.Status) {
	for _, slot := range s.Slots {
		switch {
		case slot.Booted && slot.State != "good":
			d.warn("run updater mark good once it is known to work", "slot %s is running and was not marked good: an install is refused, and it has %d tries left", slot.Name, max(slot.TriesLeft, 0))
		case slot.Primary && slot.State == "trying" && slot.TriesLeft == 1:
			d.add(boot.Finding{Severity: boot.Info, Evidence: "slot " + slot.Name + " boots next with its last try"})
		case !slot.Booted && !slot.Primary && slot.State == "bad":
			d.add(boot.Finding{Severity: boot.Info, Evidence: "slot " + slot.Name + " is marked bad, so there is no fallback", Remedy: "install into it"})
		}
	}
}

// isNew reports whether a finding is about a state store before its first install.
func isNew(dev *device.Device, f boot.Finding) bool {
	return slices.ContainsFunc(dev.Warnings(), func(w device.Warning) bool { return w.New && w.Text == f.Evidence })
}
