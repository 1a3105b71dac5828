package station

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"updater/device/config"
	"updater/install"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/release"
	"updater/update"
)

// set is the release of a plan.
type set struct {
	files  *install.Set
	opened *release.Opened
	maps   map[string]map[string][]byte // block maps, by slot and role
}

// release is the release of a plan, nil without one.
func (s *set) release() *release.Release {
	if s == nil {
		return nil
	}
	return s.opened.Release
}

// loadRelease accepts the release of the plan, and makes its images those of the slots' partitions.
func (s *Station) loadRelease(ctx context.Context) error {
	r := s.plan.Release
	files, err := s.from.FindRelease(ctx, s.beside(r.Path), s.beside(r.Signature))
	if err != nil {
		return err
	}
	accept := func(c update.Conditions) (*release.Opened, error) {
		return update.AcceptRelease(files.UnverifiedDocument, files.UnverifiedSig, c)
	}
	opened, err := accept(s.conditions())
	if err != nil {
		return fmt.Errorf("release %s: %w", r.Path, err)
	}
	s.accepts = append(s.accepts, func(c update.Conditions) error { _, err := accept(c); return err })
	s.set = &set{files: files, opened: opened, maps: map[string]map[string][]byte{}}
	for _, name := range r.Slots {
		if !slices.Contains(s.device.SlotNames(), name) {
			return s.device.UnknownSlot(name)
		}
	}
	for _, slot := range s.device.Slot {
		if len(r.Slots) == 0 || slices.Contains(r.Slots, slot.Name) {
			if err := s.loadSlot(ctx, slot); err != nil {
				return fmt.Errorf("slot %s: %w", slot.Name, err)
			}
		}
	}
	return nil
}

// loadSlot reads the block maps of one slot.
func (s *Station) loadSlot(ctx context.Context, slot config.Slot) error {
	images, err := s.set.opened.Release.ForSlot(slot.Name, s.device.Layout())
	if err != nil {
		return err
	}
	from := s.set.files.Images()
	s.set.maps[slot.Name] = map[string][]byte{}
	for _, i := range images {
		if file, ok := slot.Files[i.Role]; ok {
			return config.Requestf("role %s is the file %s, which the factory cannot write; it writes partitions", i.Role, file)
		}
		name, err := s.partitionFor(slot.Partitions[i.Role])
		if err != nil {
			return fmt.Errorf("role %s: %w", i.Role, err)
		}
		data, err := from.Map(ctx, i)
		if err != nil {
			return err
		}
		m, err := s.set.opened.Release.Map(i, data)
		if err != nil {
			return err
		}
		s.set.maps[slot.Name][i.Role] = data
		s.payloads = append(s.payloads, &medium.Payload{
			Name: i.File, Partition: name, Doc: update.NewDocument(m, i.BmapSHA256, s.set.opened.Signers),
			Open: func(ctx context.Context) (update.ImageCloser, error) {
				img, _, err := from.Open(ctx, i)
				return img, err
			},
		})
	}
	return nil
}

// partitionFor is the partition of the layout that the configuration names, which must be free for an image.
func (s *Station) partitionFor(spec string) (string, error) {
	name, labelled := strings.CutPrefix(spec, "PARTLABEL=")
	i := slices.IndexFunc(s.plan.Partition, func(p plan.Partition) bool { return labelled && p.Name == name })
	if i < 0 {
		return "", config.Requestf("%q of %s is no partition of the plan; expected PARTLABEL= and its name", spec, s.plan.Config)
	}
	if p := s.plan.Partition[i]; p.Image != "" || p.Filesystem != "" || s.plan.Identity != nil && s.plan.Identity.Partition == name {
		return "", config.Requestf("partition %s has a content of its own, expected that of the release alone", name)
	}
	return name, nil
}

// onlySets refuses images for the slots of a device with several roles, which only a release installs together.
func (s *Station) onlySets() error {
	if s.device == nil || s.set != nil || s.plan.Image != nil {
		return nil
	}
	roles := s.device.Slot[0].Roles()
	for _, slot := range s.device.Slot {
		for _, role := range slot.Roles() {
			if len(roles) > 1 && s.payloadOf(slot.Partitions[role]) != nil {
				return &config.RequestError{
					Err: fmt.Errorf("plan %s: slot %s has several roles (%s), which only a release installs together", s.o.Plan, slot.Name,
						strings.Join(roles, ", ")),
					Advice: "name [release] in the plan instead of their images; updater release create makes one",
				}
			}
		}
	}
	return nil
}
