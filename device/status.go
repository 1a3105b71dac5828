package device

import (
	"context"
	"time"

	"updater/boot"
	"updater/device/config"
	"updater/state"
)

// Finding is something that a person should know about the boot state, with its severity and remedy.
type Finding = boot.Finding

// The severities of a finding.
const (
	Info    = boot.Info
	Warn    = boot.Warning
	Failure = boot.Failure
)

// Status is the content of a device's slots and the next choices of its boot loader.
type Status struct {
	Product  string          `json:"product,omitempty"`
	Disk     string          `json:"disk"`
	Backend  string          `json:"backend"`
	Booted   string          `json:"booted"`  // "" outside every slot
	Primary  string          `json:"primary"` // boots next; "" means none
	Slots    []SlotStatus    `json:"slots"`
	Floor    int64           `json:"rollback_floor"`        // lowest rollback index that may be installed
	Time     time.Time       `json:"trusted_time,omitzero"` // the last that was recorded
	Boots    []boot.Forecast `json:"boots"`                 // the next three boots, when nothing is marked in between
	Findings []Finding       `json:"findings,omitempty"`
}

// SlotStatus is one slot of a [Status].
type SlotStatus struct {
	Name       string            `json:"name"`
	State      string            `json:"state"` // good | trying | bad
	TriesLeft  int               `json:"tries_left"`
	Booted     bool              `json:"booted"`
	Primary    bool              `json:"primary"`
	Partitions map[string]string `json:"partitions"`        // role to partition or file
	Version    string            `json:"version,omitempty"` // of its release
	Images     state.Slot        `json:"images,omitempty"`  // installed images by role, where a state store knows them
}

// ReadStatus opens a device for reading and returns its status. booted is as in [Options].
func ReadStatus(ctx context.Context, c *config.Config, booted string) (*Status, error) {
	d, err := Open(c, Options{Booted: booted})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Status(ctx)
}

// Status reads the boot state, the state store, and where the slots are.
func (d *Device) Status(ctx context.Context) (*Status, error) {
	st, err := d.bootState(ctx)
	if err != nil {
		return nil, err
	}
	known := d.known
	s := &Status{
		Product: d.Config.Product, Disk: d.disk.Path(), Backend: d.Config.Boot.Backend,
		Booted: st.Booted, Primary: st.Next, Boots: boot.Forecasts(st), Findings: st.Findings, Floor: known.Floor, Time: known.Time,
	}
	s.Findings = append(s.Findings, d.oneSlot(st)...)
	if bad := d.disk.Degraded(); bad != "" {
		s.Findings = append(s.Findings, boot.Warn(boot.RemedyRepair+", or restore the table with sgdisk", "%s", bad))
	}
	for _, w := range d.warnings {
		severity := Warn
		if w.New {
			severity = Info
		}
		s.Findings = append(s.Findings, Finding{Severity: severity, Evidence: w.Text})
	}
	for _, slot := range st.Slots {
		r := SlotStatus{
			Name: slot.Name, State: stateWord(slot, st.Booted), TriesLeft: slot.TriesLeft,
			Booted: slot.Name == st.Booted, Primary: slot.Name == st.Next, Images: known.Slots[slot.Name],
		}
		switch err := d.oneRelease(slot.Name); {
		case err == nil:
			r.Version = versionOf(r.Images)
		case slot.Bootable:
			r.State = "trying" // not good, whatever the boot loader knows of it
			s.Findings = append(s.Findings, boot.Fail("install a release into it, or run updater doctor --repair, which marks it bad",
				"slot %s is bootable: %v", slot.Name, err))
		}
		var missing []Finding
		r.Partitions, missing = d.partitions(slot.Name)
		s.Findings = append(s.Findings, missing...)
		s.Slots = append(s.Slots, r)
	}
	return s, nil
}

// partitions finds the partitions and files of a slot, by role. Those that are missing are findings.
func (d *Device) partitions(slot string) (found map[string]string, missing []Finding) {
	found = map[string]string{}
	for _, c := range d.Config.Slot {
		if c.Name != slot {
			continue
		}
		for _, role := range c.Roles() {
			if file, ok := d.Config.FileRole(slot, role); ok {
				if err := d.checkPlace(slot, role, file); err != nil {
					missing = append(missing, boot.Fail("correct the files of the slot in the configuration", "%v", err))
				}
				found[role] = file.String()
				continue
			}
			p, err := d.disk.Find(c.Partitions[role])
			if err != nil {
				missing = append(missing, boot.Fail("correct the partitions of the slot in the configuration", "%v", err))
				continue
			}
			found[role] = p.String()
		}
	}
	return found, missing
}

// versionOf is the version of a slot whose images are of one release.
func versionOf(images state.Slot) string {
	for _, i := range images {
		return i.Version
	}
	return ""
}

// stateWord is one word for a slot's state. A slot that runs and was not marked good yet is being tried, also when this boot has spent its
// last try.
func stateWord(s boot.SlotState, booted string) string {
	switch {
	case s.Good:
		return "good"
	case s.Bootable, s.Name == booted && s.Priority > 0:
		return "trying"
	}
	return "bad"
}
