package main

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"updater/boot"
	"updater/verify"
)

// expirySoon is how early the end of a key is told: time to sign a new one and to bring it to a fleet.
const expirySoon = 90 * 24 * time.Hour

// unstableNode are device nodes whose letter depends on the order in which disks are found.
var unstableNode = regexp.MustCompile(`^/dev/(sd|hd)[a-z]+\d*$`)

// checkConfig looks for what a configuration may say and hardly anybody means.
func (d *doctor) checkConfig(context.Context) {
	c := d.config
	if c.Product == "" {
		d.warn("set product", "no product is configured, so an update that names one is refused, and one for another board is not")
	}
	if c.State.Device == "" {
		d.warn("set state to a small partition", "no state store is configured, so an older, vulnerable image can be installed again")
	}
	for _, s := range c.Slot {
		for _, role := range sortedKeys(s.Partitions) {
			for _, o := range c.Slot {
				if o.Partitions[role] == "" {
					d.failure("give every slot the same roles", "slot %s has a partition for role %s, slot %s has none", s.Name, role, o.Name)
				}
			}
			if spec := s.Partitions[role]; unstableNode.MatchString(spec) {
				d.warn("name the partition by PARTLABEL= or PARTUUID=", "slot %s: %s is another disk when one is plugged in before it", s.Name, spec)
			}
		}
	}
	for _, k := range c.Trust.Key {
		for _, role := range k.Roles {
			if !slices.ContainsFunc(c.Slot, func(s SlotConfig) bool { return s.Partitions[role] != "" }) {
				d.warn("correct roles", "key %s may sign for role %s, which no slot has", k.Fingerprint, role)
			}
		}
	}
	for i, p := range c.Hooks.paths() {
		key := []string{"hooks.pre_install", "hooks.post_install", "hooks.post_activate"}[i]
		if *p == "" {
			continue
		}
		switch info, err := os.Stat(*p); {
		case err != nil:
			d.failure("put the program there, or take the key out", "%s: %v", key, err)
		case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
			d.failure("chmod 755 it", "%s: %s is no program", key, *p)
		case info.Mode().Perm()&0o022 != 0:
			d.warn("chmod go-w it", "%s: %s can be changed by others than its owner", key, *p)
		}
	}
	for key, file := range map[string]string{
		"source.ca": c.Source.CA, "source.client_cert": c.Source.ClientCert, "source.client_key": c.Source.ClientKey, "source.token_file": c.Source.TokenFile,
	} {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		switch {
		case err != nil:
			d.failure("put the file there, or take the key out", "%s: %v", key, err)
		case strings.HasSuffix(key, "_key") || strings.HasSuffix(key, "token_file"):
			if info.Mode().Perm()&0o077 != 0 {
				d.warn("chmod 600 it", "%s %s can be read by others than its owner", key, file)
			}
		}
	}
}

// checkKeys judges the key ring as a signature of this moment would be.
func (d *doctor) checkKeys(context.Context) {
	recorded := time.Time{}
	if m, err := readMemory(d.config); err == nil {
		recorded = m.state().Time
	}
	for _, path := range d.config.Keyring {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
			d.warn("chmod go-w it", "keyring %s can be changed by others than its owner", path)
		}
	}
	policy, err := d.config.policy(nil, recorded)
	if err != nil {
		d.fail(err)
		return
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
			d.warn("put the renewed certificate into the keyring", "key %s cannot sign: %s", who, k.Unusable)
			continue
		case !k.Expires.IsZero() && left < expirySoon:
			d.warn("renew it, and bring the certificate to this device before", "key %s expires on %s, in %d days", who, k.Expires.Format(time.DateOnly), int(left.Hours()/24))
		}
		usable++
	}
	if usable < need {
		d.failure("put valid certificates into the keyring", "%d of the trusted keys can sign now, an update needs %d: none can be installed", usable, need)
	}
}

// checkClock compares the system clock with what is known to be past, and with what can be.
func (d *doctor) checkClock(context.Context) {
	now, built := d.now(), buildTime()
	floor, what := built, "when this program was built"
	if m, err := readMemory(d.config); err == nil && m.state().Time.After(floor) {
		floor, what = m.state().Time, "the last trusted time"
	}
	const remedy = "set the clock, or see to it that it is set at boot; until then the later time counts"
	switch {
	case now.Year() < 2000:
		d.warn(remedy, "the clock says %s: it was never set", now.UTC().Format(time.RFC3339))
	case now.Before(floor):
		d.warn(remedy, "the clock says %s, before %s, %s", now.UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339), what)
	case !floor.IsZero() && now.Sub(floor) > 10*verify.MaxClockLead:
		d.warn("set the clock; updates that expire look expired", "the clock says %s, ten years after %s", now.UTC().Format(time.RFC3339), what)
	}
}

// checkFirmware looks for what the boot loader's backend needs of the kernel.
func (d *doctor) checkFirmware(context.Context) {
	if d.config.Boot.Backend != "efi" {
		return
	}
	if err := d.efi(); err != nil {
		d.failure("boot by UEFI, with CONFIG_EFIVAR_FS in the kernel", "%v", err)
	}
}

// checkBoot adds what the backend says of its state, and compares it with what runs.
func (d *doctor) checkBoot(ctx context.Context) {
	dev, err := d.open()
	if err != nil {
		d.fail(err)
		return
	}
	defer dev.Close()
	s, err := dev.status(ctx)
	if err != nil {
		d.fail(err)
		return
	}
	d.add(slices.DeleteFunc(s.Findings, func(f boot.Finding) bool { return unused(f.Evidence) })...)
	d.tries(s)
	if most := dev.backend.Caps().MaxTries; d.config.Boot.Tries > most {
		d.warn("set boot.tries to what it counts", "boot.tries is %d; this boot loader counts %d at most", d.config.Boot.Tries, most)
	}
	if d.config.Boot.Booted != "" && !dev.disk.IsFile() {
		d.warn("take it out; the running slot comes from the kernel command line", "boot.booted is for disk image files, and this is a device")
	}
}

// tries looks at the tries of what runs and of what boots next.
func (d *doctor) tries(s *statusReport) {
	for _, slot := range s.Slots {
		switch {
		case slot.Booted && slot.State != "good":
			d.warn("run updater mark good once it is known to work", "slot %s is running and was not marked good: an install is refused, and it has %s left", slot.Name, tries(max(slot.TriesLeft, 0)))
		case slot.Primary && slot.State == "trying" && slot.TriesLeft == 1:
			d.add(boot.Finding{Severity: boot.Info, Evidence: "slot " + slot.Name + " boots next with its last try"})
		case !slot.Booted && !slot.Primary && slot.State == "bad":
			d.add(boot.Finding{Severity: boot.Info, Evidence: "slot " + slot.Name + " is marked bad, so there is nothing to fall back to", Remedy: "install into it"})
		}
	}
}
