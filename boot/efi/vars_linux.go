package efi

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/efivarfs"
	"golang.org/x/sys/unix"
)

// The vendor GUIDs of the variables.
const (
	Global = "8be4df61-93ca-11d2-aa0d-00e098032b8c" // UEFI specification
	Loader = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f" // boot loader interface (systemd.io)
)

// Firmware accesses the variables of one vendor in the running firmware. A change is one write to efivarfs, which returns
// once the firmware has stored the variable.
type Firmware struct {
	fs     efivarfs.EFIVar
	vendor [16]byte
}

var _ Vars = (*Firmware)(nil)

// OpenFirmware opens the variables of a vendor. It mounts efivarfs if it is not mounted.
func OpenFirmware(vendor string) (*Firmware, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(vendor, "-", ""))
	if err != nil || len(id) != len(Firmware{}.vendor) {
		return nil, fmt.Errorf("EFI vendor %q: not a GUID", vendor)
	}
	fs, err := efivarfs.New()
	if errors.Is(err, efivarfs.ErrNoFS) {
		if err := unix.Mount("efivarfs", filepath.Clean(efivarfs.DefaultVarFS), "efivarfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return nil, fmt.Errorf("mounting efivarfs: %w (was the system started by UEFI?)", err)
		}
		fs, err = efivarfs.New()
	}
	if err != nil {
		return nil, fmt.Errorf("opening the firmware variables: %w", err)
	}
	return &Firmware{fs, [16]byte(id)}, nil
}

func (f *Firmware) name(name string) efivarfs.VariableDescriptor {
	return efivarfs.VariableDescriptor{Name: name, GUID: f.vendor}
}

// List implements [Vars].
func (f *Firmware) List() ([]string, error) {
	all, err := f.fs.List()
	var names []string
	for _, v := range all {
		if v.GUID == f.vendor {
			names = append(names, v.Name)
		}
	}
	return names, err
}

// Get implements [Vars].
func (f *Firmware) Get(name string) ([]byte, error) {
	_, data, err := f.fs.Get(f.name(name))
	if err != nil {
		return nil, &os.PathError{Op: "reading the EFI variable", Path: name, Err: err}
	}
	return data, nil
}

// Set implements [Vars].
func (f *Firmware) Set(name string, data []byte) error {
	const attributes = efivarfs.AttributeNonVolatile | efivarfs.AttributeBootserviceAccess | efivarfs.AttributeRuntimeAccess
	if err := f.fs.Set(f.name(name), attributes, data); err != nil {
		return &os.PathError{Op: "writing the EFI variable", Path: name, Err: err}
	}
	return nil
}

// Delete implements [Vars].
func (f *Firmware) Delete(name string) error {
	if err := f.fs.Remove(f.name(name)); err != nil {
		return &os.PathError{Op: "removing the EFI variable", Path: name, Err: err}
	}
	return nil
}

// String returns a variable that holds a UTF-16 string, as those of the boot loader interface do; "" if it is missing.
func String(v Vars, name string) (string, error) {
	data, err := v.Get(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return decodeUTF16(data), err
}
