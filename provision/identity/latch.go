package identity

import (
	"fmt"
	"maps"
	"slices"

	"updater/provision/fat"
	"updater/provision/plan"
)

// WriteLatch adds a latch to the identity that [Write] has written and reads all of it back. It is durable once it returns nil.
func WriteLatch(w fat.Window, latch []byte, id *Identity) error {
	if err := (&writer{Spec: Spec{Window: w}, id: id}).place(latch); err != nil {
		return err
	}
	all := maps.Clone(id.Files)
	all[plan.LatchFile] = latch
	return fat.Compare(w, all)
}

// ReadSerial reads the serial of a provisioned device from the medium.
func ReadSerial(w fat.Window) (string, error) {
	fs, err := fat.Open(w)
	if err != nil {
		return "", err
	}
	serial, err := fs.Get(plan.SerialFile)
	return string(serial), err
}

// Check compares files of a provisioned device on the medium with their sha256 (hex, by name), and the latch with its own, "" for none.
func Check(w fat.Window, sums map[string]string, latch string) error {
	fs, err := fat.Open(w)
	if err != nil {
		return err
	}
	sums = maps.Clone(sums)
	if latch != "" {
		sums[plan.LatchFile] = latch
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		data, err := fs.Get(name)
		if err != nil {
			return err
		}
		if got := digest(data); got != sums[name] {
			return fmt.Errorf("file %s has sha256 %.16s, its record says %.16s", name, got, sums[name])
		}
	}
	return nil
}
