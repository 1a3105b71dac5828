package provision

import "fmt"

// fitTable makes the table of a whole-disk image fit the disk, and returns its partitions; none where there is no GPT.
func (r *run) fitTable(u *unit) ([]Placed, error) {
	dev, grow := u.device(), r.Plan.Image.Grow
	found := false
	err := dev.do(func() (err error) {
		found, err = dev.FitTable(u.disk.Sector, grow)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !found && grow {
		return nil, fmt.Errorf("%s: the image has no GUID partition table, so its last partition cannot grow", u.Name)
	}
	if !found {
		return nil, nil
	}
	if _, err := readTable(dev, u.disk.Sector); err != nil {
		return nil, err
	}
	return partitions(dev, u.disk.Sector)
}
