package efi

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/efivarfs"
	"golang.org/x/sys/unix"
)

// varfs is efivarfs in memory. Every operation returns err.
type varfs struct {
	vars map[efivarfs.VariableDescriptor][]byte
	err  error
}

func (v *varfs) Get(d efivarfs.VariableDescriptor) (efivarfs.VariableAttributes, []byte, error) {
	if data, ok := v.vars[d]; ok || v.err != nil {
		return 0, data, v.err
	}
	return 0, nil, os.ErrNotExist
}

func (v *varfs) Set(d efivarfs.VariableDescriptor, _ efivarfs.VariableAttributes, data []byte) error {
	v.vars[d] = data
	return v.err
}

func (v *varfs) Remove(d efivarfs.VariableDescriptor) error {
	delete(v.vars, d)
	return v.err
}

func (v *varfs) List() (list []efivarfs.VariableDescriptor, err error) {
	for d := range v.vars {
		list = append(list, d)
	}
	return list, v.err
}

// TestFirmware: the firmware accesses the variables of its vendor only, and reports every error.
func TestFirmware(t *testing.T) {
	foreign := efivarfs.VariableDescriptor{Name: "Foreign", GUID: [16]byte{2}}
	store := &varfs{vars: map[efivarfs.VariableDescriptor][]byte{foreign: nil}}
	f := &Firmware{store, [16]byte{1}}
	if err := f.Set("Own", []byte("data")); err != nil {
		t.Fatal(err)
	}
	if data, err := f.Get("Own"); err != nil || !bytes.Equal(data, []byte("data")) {
		t.Errorf("Get = %q, %v", data, err)
	}
	if names, err := f.List(); err != nil || !slices.Equal(names, []string{"Own"}) {
		t.Errorf("List = %q, %v; want the variable of the vendor", names, err)
	}
	if err := f.Delete("Own"); err != nil || len(store.vars) != 1 {
		t.Errorf("Delete = %v, and the variables are %v", err, store.vars)
	}
	if _, err := f.Get("Own"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Get of a deleted variable = %v; want ErrNotExist", err)
	}
	store.err = unix.EIO
	_, listed := f.List()
	_, read := f.Get("Own")
	for i, err := range []error{listed, read, f.Set("Own", nil), f.Delete("Own")} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("operation %d without access = %v; want EIO", i, err)
		}
	}
}

func TestOpenFirmware(t *testing.T) {
	for _, vendor := range []string{"x", "8be4df61", Global + "00"} {
		if _, err := OpenFirmware(vendor); err == nil || !strings.Contains(err.Error(), "not a GUID") {
			t.Errorf("OpenFirmware of vendor %s = %v", vendor, err)
		}
	}
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		t.Skip("this machine was started by UEFI")
	}
	if _, err := OpenFirmware(Global); err == nil || !strings.Contains(err.Error(), "mounting efivarfs") {
		t.Errorf("OpenFirmware without UEFI = %v; want the error of the mount", err)
	}
}
