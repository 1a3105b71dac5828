package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"updater/device/config"
)

// serialFiles are where firmware keeps the serial of a machine, by the kind of the firmware.
var serialFiles = map[string][]string{
	"device-tree": {"sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"},
	"dmi":         {"sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial"},
}

// Hardware lists the names of the hardware that a configuration is for: the configured revision, else the machine's compatible strings in
// the device tree (Devicetree Specification, 2.3.1), below root, which is / on a device. It is empty where both are missing.
func Hardware(root string, c *config.Config) []string {
	if c.Hardware != "" {
		return []string{c.Hardware}
	}
	data, err := os.ReadFile(filepath.Join(root, "sys/firmware/devicetree/base/compatible"))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(strings.Split(string(data), "\x00"), func(s string) bool { return s == "" })
}

// MachineSerial is the serial of this machine from the firmware below root, which is / on a device. kind is device-tree or dmi; "" means the
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

// Identifier places this machine in rollouts and names it in reports. It is the configured identifier, else the machine-id below root,
// which is / on a device, else the serial of the firmware. Errors: [config.Error].
func Identifier(root string, c *config.Config) (string, error) {
	if c.Channel.Identifier != "" {
		return c.Channel.Identifier, nil
	}
	data, err := os.ReadFile(filepath.Join(root, "etc/machine-id"))
	if id := strings.TrimSpace(string(data)); err == nil && id != "" && id != "uninitialized" {
		return id, nil
	}
	serial, err := MachineSerial(root, "")
	if err != nil {
		return "", &config.Error{
			Err:    fmt.Errorf("this machine has no identifier: /etc/machine-id is missing or empty, and %w", err),
			Advice: "set channel.identifier in the configuration",
		}
	}
	return serial, nil
}
