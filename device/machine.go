package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// serialFiles are where firmware keeps the serial of a machine, by the kind of the firmware.
var serialFiles = map[string][]string{
	"device-tree": {"sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"},
	"dmi":         {"sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial"},
}

// MachineSerial is the serial of this machine from the firmware below root, which is / on a device. kind is device-tree or dmi; "" takes the
// first that has one.
func MachineSerial(root, kind string) (string, error) {
	files := serialFiles[kind]
	if kind == "" {
		files, kind = slices.Concat(serialFiles["device-tree"], serialFiles["dmi"]), "firmware"
	}
	var errs []error
	for _, path := range files {
		data, err := os.ReadFile(filepath.Join(root, path))
		if text := strings.TrimSpace(string(bytes.TrimRight(data, "\x00"))); err == nil && text != "" {
			return text, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("this machine has no serial in its %s: %w", kind, errors.Join(errs...))
}
